"""COCO: masks of 80 classes, objects, persons' keypoints, captions (on disk: --data-root; test = val)."""

from fcbench.data.coco.dataset import PLUGIN

__all__ = ["PLUGIN"]
