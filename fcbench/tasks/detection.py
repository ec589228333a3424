"""Object detection: COCO's AP of boxes, by IoU and by size, of a tail's own detections.

A head's ``predict`` returns a `fcbench.core.samples.Detections` per image; `fcbench.tasks.shared.coco_ap` says
what is kept of it and what an interval over images means. No probability of the annotated objects is stated: there is
no usable information for this task.
"""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("detection", "bbox")
