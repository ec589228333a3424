"""Detections with keypoints to a quarter pixel, scores to a thousandth."""

from fcbench.labels.shared.detections import CODER as PLUGIN

__all__ = ["PLUGIN"]
