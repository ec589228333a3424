"""COCO's annotation files, found by name."""

from __future__ import annotations

import re
from pathlib import Path

from fcbench.data.shared.layout import Layout

LAYOUT = Layout(
    "coco",
    "ROOT/annotations/{instances,person_keypoints,captions}_{train2017,val2017}.json and "
    "ROOT/{train2017,val2017}/*.jpg (or ROOT/images/, with or without such folders; another year as well), from "
    "https://cocodataset.org/#download",
)
KINDS = {
    "segmentation": "instances",
    "detection": "instances",
    "instance_segmentation": "instances",
    "pose": "person_keypoints",
    "keypoint_detection": "person_keypoints",
    "captioning": "captions",
}
"""Task -> the annotation files that carry it."""
_FILE = re.compile(rf"({'|'.join(dict.fromkeys(KINDS.values()))})_((train|val)\w*)\.json")


def official_splits(folder: Path) -> dict[str, str]:
    """Role, ``train`` or ``val``, -> the one split with annotation files, such as ``train2017``."""
    if not folder.is_dir():
        raise LAYOUT.error(folder, "is missing")
    found: dict[str, set[str]] = {}
    for path in folder.iterdir():
        if match := _FILE.fullmatch(path.name):
            found.setdefault(match[3], set()).add(match[2])
    if not found:
        raise LAYOUT.error(folder, "holds no annotation files")
    for tags in found.values():
        if len(tags) > 1:
            raise LAYOUT.error(folder, f"holds annotations of {' and '.join(sorted(tags))}: keep one")
    return {role: tags.pop() for role, tags in found.items()}
