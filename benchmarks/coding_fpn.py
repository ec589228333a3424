"""How long does it take to code the pyramid of a detection network, and in how much memory? Every codec, one rate each.

fcbench run benchmarks/coding_fpn.py --data-root COCO --weights random --threads 1 --out results/coding_fpn

Faster R-CNN's FPN of an image resized to 800x1066: 18.5 million numbers. Times do not need trained weights, so this can
be measured where none can be had; its accuracies and rates then say nothing. See encode_ms, decode_ms, peak_mb.
"""

from fcbench.core import registry
from fcbench.measure.suite import Suite
from fcbench.training.options import Budget

CODECS = tuple(registry.names("codec"))


def middle(codec: str) -> tuple[dict[str, float | int | str], ...]:
    """The operating point in the middle of a codec's default sweep."""
    sweep = registry.get("codec", codec).sweep("mse")
    return (sweep[len(sweep) // 2],)


SUITE = Suite(
    name="coding_fpn",
    encoders=("torchvision:fasterrcnn_resnet50_fpn",),
    codecs=CODECS,
    tasks=("detection",),
    dataset="coco",
    image_size_px=(480, 640),
    split_point="fpn",
    head="tail",
    params={codec: middle(codec) for codec in CODECS},
    n_train=2,
    n_test=2,
    budget=Budget(codec_steps=2, codec_batch=1),
)
