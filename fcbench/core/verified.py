"""How each built-in plug-in was verified: a format that is tested is not a measured result.

Plug-ins from outside are not listed.
"""

_FORMAT = "random weights only: equal to the official classes, reads their checkpoint files"
_MADE = "made files in the official layout only"
_CODED = "rows in results/codecs_scenes and results/codecs_camvid"
_EMBEDDED = "its own weights: rows in results/scenes"
_FROZEN = "its own weights: rows in results/scenes_frozen"

VERIFIED: dict[str, dict[str, str]] = {
    "encoder": {
        "extracted": "made folders only",
        "hf": "random weights only: equal to the official classes, reads folders that they wrote",
        "hiera": _FORMAT,
        "hiera_nano": _EMBEDDED,
        "mobilenetv2": "published weights, as their 8-bit interpreter computes: rows in "
        "results/universality_published and results/split_deeplab",
        "sam2": f"{_FORMAT}; rows in results/real_smoke",
        "sam2_nano": _EMBEDDED,
        "timm": "tf_efficientnet_lite0 and _lite1: official weights, rows in results/camvid_lite0, "
        "results/split_lite0, results/split_lite0_points and results/split_lite1; others: random weights only",
        "torchvision": "random weights only: front then tail equals torchvision's own networks; times of coding in "
        "results/coding_fpn",
    },
    "taskmodel": {
        "blip": _FORMAT,
        "depth_anything": _FORMAT,
        "nano_captioning": _FROZEN,
        "nano_depth": _FROZEN,
        "nano_pose": _FROZEN,
        "nano_segmentation": _FROZEN,
        "sam2_masks": _FORMAT,
        "vitpose": _FORMAT,
    },
    "codec": {
        name: _CODED
        for name in (
            "av1 checkerboard elic factorized gained_hyperprior hevc hyperprior jpeg jpeg2000 jpegxl pq raw "
            "scale_hyperprior sperr strata sz3 uniform webp zfp"
        ).split()
    }
    | dict.fromkeys(("elic_joint", "strata_joint"), "times of coding alone: rows in results/coding_fpn")
    | {"hyperprior_joint": "rows in results/pyramid"}
    | {"hevc_klt": "rows in results/codecs_scenes_standard; x265's streams as those of hevc"}
    | {"vvc": "no rows here: the tests encode by a stand-in for its program"},
    "image": {name: _CODED for name in ("avif", "hevc", "jpeg", "jpegxl", "webp")}
    | {"avif_half": "the tests alone: no rows here", "hevc_half": "rows in results/codecs_scenes_standard"}
    | {"compressai_image": "random weights only: no rows here"},
    "dataset": {
        "ade20k": _MADE,
        "camvid": "the real files: rows in results/codecs_camvid",
        "coco": "100 real images: rows in results/real_smoke",
        "coco_voc": "100 real images: rows in results/split_deeplab",
        "extracted": "made folders only",
        "folder": _MADE,
        "hf": "made folders only",
        "imagenet": _MADE,
        "imagenet1k": "500 real images: rows in results/split_lite0",
        "letterbox": "100 real images (coco): no rows here",
        "nyuv2": _MADE,
        "rgbd": "80 real frames: rows in results/real_smoke",
        "scenes": "its own: rows in results/scenes",
        "voc": _MADE,
    },
}
"""Kind -> name -> how it was verified."""
