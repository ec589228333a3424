"""Instance segmentation: COCO's mask AP of a tail's detections (`fcbench.tasks.shared.detecting`)."""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("instance_segmentation", "segm")
