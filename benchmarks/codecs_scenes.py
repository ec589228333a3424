"""Every codec and anchor on scenes: both embedded encoders, four tasks. VVC is skipped if its programs are missing.

fcbench run benchmarks/codecs_scenes.py --out results/codecs_scenes
fcbench compare results/codecs_scenes --anchor hyperprior -o results/codecs_scenes/compare.md
"""

from fcbench.measure.suite import Suite

LEARNED = ("factorized", "scale_hyperprior", "hyperprior", "checkerboard", "elic", "gained_hyperprior", "strata")
MOSAICS = ("vvc", "hevc", "av1", "jpeg2000", "jpegxl", "jpeg", "webp")
OTHERS = ("raw", "uniform", "pq", "zfp", "sz3", "sperr")
IMAGES = ("image:hevc", "image:avif", "image:jpegxl", "image:webp", "image:jpeg")

SUITE = Suite(
    name="codecs_scenes",
    codecs=(*LEARNED, *OTHERS, *MOSAICS, *IMAGES, "label"),
    params={"uniform": tuple({"bits": bits} for bits in range(2, 9))},
)
