"""Keypoints of persons that the network finds itself: COCO's keypoint AP, of a tail's own detections.

A head's ``predict`` returns a `fcbench.core.samples.Detections` per image; `fcbench.tasks.shared.coco_ap` says
what is kept of it and what an interval over images means. No probability of the annotated objects is stated: there is
no usable information for this task.
"""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("keypoint_detection", "keypoints", needs_coco_keypoints=True)
