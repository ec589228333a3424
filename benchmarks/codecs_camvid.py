"""Every codec and anchor on CamVid with EfficientNet-Lite0. VVC is skipped if its programs are missing.

fcbench run benchmarks/codecs_camvid.py --data-root CAMVID --out results/codecs_camvid
fcbench compare results/codecs_camvid --anchor hyperprior -o results/codecs_camvid/compare.md
"""

from dataclasses import replace
from pathlib import Path

from fcbench.measure.suite import load

HERE = Path(__file__).parent
ANCHOR = load(HERE / "camvid_lite0.py")
FOUR = tuple({"lmbda": lmbda} for lmbda in (0.3, 0.8, 2.0, 6.0))
"""Lmbdas of the codecs between ``hyperprior`` and ``strata``: as few as a curve may have."""

SUITE = replace(
    ANCHOR,
    name="codecs_camvid",
    codecs=load(HERE / "codecs_scenes.py").codecs,
    params={**ANCHOR.params, **dict.fromkeys(("scale_hyperprior", "checkerboard", "elic"), FOUR)},
)
