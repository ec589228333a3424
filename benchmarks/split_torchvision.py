"""Split inference with torchvision's Faster R-CNN on COCO: its pyramid is coded, its own heads find the objects.

fcbench run benchmarks/split_torchvision.py --data-root COCO --out results/split_torchvision
fcbench compare results/split_torchvision --anchor remote

COCO holds the official annotations and images; the weights (160 MB) are fetched from download.pytorch.org. Every image
is brought to 480x640, a common size in COCO, before the network resizes it to 800x1066: the uncoded AP is that
of the row ``ceiling``, not the published 0.370 of images at their own aspect ratio. A sample is 18.5 million numbers,
71 MiB; 2000 training and 5000 test images are 480 GiB of features, of which --features-dtype float16 saves half.
``--plan`` estimates the time on your machine.

Others, each with the suite's codecs:

--encoder torchvision:retinanet_resnet50_fpn --split-point c3     (also fcos_resnet50_fpn; c2, trunk, fpn)
--encoder torchvision:ssdlite320_mobilenet_v3_large --split-point c4 --image-size 320
--encoder torchvision:maskrcnn_resnet50_fpn --task detection --task instance_segmentation
--encoder torchvision:keypointrcnn_resnet50_fpn --task keypoint_detection
--n-train 200 --n-test 500                                        (48 GiB)
"""

from fcbench.measure.suite import Suite
from fcbench.training.options import Budget

LAMBDAS = tuple({"lmbda": v} for v in (0.05, 0.12, 0.3, 0.8, 2.0))

SUITE = Suite(
    name="split_torchvision",
    encoders=("torchvision:fasterrcnn_resnet50_fpn",),
    codecs=(
        "uniform",
        "image:jpeg",
        "image:jpegxl",
        "image:avif",
        "label",
        "hyperprior",
        "strata",
        "factorized",
        "hevc",
    ),
    tasks=("detection",),
    dataset="coco",
    image_size_px=(480, 640),
    split_point="fpn",
    head="tail",
    params={
        "uniform": tuple({"bits": bits} for bits in (2, 3, 4, 5)),
        **dict.fromkeys(("factorized", "hyperprior", "strata"), LAMBDAS),
    },
    n_train=2000,
    budget=Budget(codec_steps=2000, codec_batch=2, codec_rate=1e-3),
)
