"""COCO with the classes of PASCAL VOC, for networks trained for these (on disk: --data-root; test = val).

The objects of COCO's other 60 classes are background, as in torchvision's training of its segmentation networks.
"""

from dataclasses import replace
from typing import Literal

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, DatasetMeta
from fcbench.data.shared.coco import Coco, CocoPlugin
from fcbench.data.shared.images import PHOTOGRAPHS
from fcbench.data.shared.voc import CLASSES

OF_COCO = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""VOC's name of a class -> COCO's, where they differ."""


class Plugin(CocoPlugin):
    """COCO's masks with VOC's classes, from ``--data-root``."""

    tasks = ("segmentation",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Coco:
        found = super().open(split, options)
        if "segmentation" not in found.tasks:
            raise FcbenchError(found.absent["segmentation"])
        names = found.meta.class_names
        label = {names.index(OF_COCO.get(c, c)): i for i, c in enumerate(CLASSES) if OF_COCO.get(c, c) in names}
        masks = {
            image: tuple(replace(one, label=label[one.label]) for one in regions if one.label in label)
            for image, regions in found.annotations["segmentation"].items()
        }
        meta = DatasetMeta(class_names=tuple(CLASSES), task_models=PHOTOGRAPHS)
        return replace(found, annotations={"segmentation": masks}, tasks=self.tasks, meta=meta, name="coco_voc")


PLUGIN = Plugin()
