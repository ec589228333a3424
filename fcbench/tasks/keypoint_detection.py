"""Keypoints of persons that a tail finds itself: COCO's keypoint AP (`fcbench.tasks.shared.detecting`)."""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("keypoint_detection", "keypoints", needs_coco_keypoints=True)
