"""Instance segmentation: COCO's AP of masks, of a tail's own detections (`fcbench.tasks.shared.detecting`)."""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("instance_segmentation", "segm")
