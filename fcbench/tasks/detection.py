"""Object detection: COCO's AP of boxes of a tail's own detections (`fcbench.tasks.shared.detecting`)."""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("detection", "bbox")
