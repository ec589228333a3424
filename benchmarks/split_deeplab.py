"""Split inference with published segmentation: DeepLabV3 on MobileNetV2, cut at stride 16, read by its own head.

fcbench run benchmarks/split_deeplab.py --data-root COCO --out results/split_deeplab

Masks are COCO's, with the 20 classes of PASCAL VOC; images train codecs, masks do not. The published weights are
fetched, or given: --weights deeplabv3_mnv2_pascal_quant.tflite. With VOC itself: --dataset voc --data-root VOC2012.
"""

from fcbench.measure.suite import Suite
from fcbench.training.options import Budget

SUITE = Suite(
    name="split_deeplab",
    encoders=("mobilenetv2:voc_segmentation",),
    codecs=("uniform", "image:jpeg", "image:webp", "image:avif", "image:hevc", "hevc_klt", "hyperprior", "strata"),
    tasks=("segmentation",),
    dataset="coco_voc",
    image_size_px=(513, 513),
    split_point="stage3",
    head="tail",
    params={"uniform": tuple({"bits": bits} for bits in (2, 3, 4, 5))},
    budget=Budget(codec_steps=300),
)
