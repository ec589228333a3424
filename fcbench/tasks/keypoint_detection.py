"""Keypoint detection: COCO's keypoint AP of persons that a tail finds itself (`fcbench.tasks.shared.detecting`)."""

from fcbench.tasks.shared.detecting import DetectingPlugin

PLUGIN = DetectingPlugin("keypoint_detection", "keypoints", needs_coco_keypoints=True)
