"""Object detection: COCO's box AP of a tail's detections (`fcbench.tasks.shared.detecting`)."""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("detection", "bbox")
