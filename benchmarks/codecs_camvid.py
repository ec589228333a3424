"""Every codec and anchor that runs without a further program, on CamVid with EfficientNet-Lite0.

fcbench run benchmarks/codecs_camvid.py --data-root CAMVID --out results/codecs_camvid
fcbench compare results/codecs_camvid --anchor hyperprior -o results/codecs_camvid/compare.md
"""

from dataclasses import replace
from pathlib import Path

from fcbench.suite import load

HERE = Path(__file__).parent

SUITE = replace(
    load(HERE / "camvid_lite0.py"),
    name="codecs_camvid",
    codecs=load(HERE / "codecs_scenes.py").codecs,
)
