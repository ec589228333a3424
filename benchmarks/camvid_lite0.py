"""CamVid segmentation from EfficientNet-Lite0 features at stride 16: real photographs, a real pretrained encoder.

fcbench run benchmarks/camvid_lite0.py --data-root CAMVID --out results/camvid_lite0
"""

from fcbench.measure.suite import Suite
from fcbench.training.options import Budget

SUITE = Suite(
    name="camvid_lite0",
    encoders=("timm:tf_efficientnet_lite0",),
    codecs=("raw", "uniform", "factorized", "hyperprior"),
    tasks=("segmentation",),
    dataset="camvid",
    params={"uniform": tuple({"bits": bits} for bits in range(2, 9))},
    budget=Budget(task_steps=700, task_batch=8, codec_steps=300, codec_batch=8),
)
