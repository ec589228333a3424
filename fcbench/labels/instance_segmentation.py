"""Detections with masks: masks losslessly, scores to a thousandth, boxes to a quarter pixel."""

from fcbench.labels.shared.detections import CODER as PLUGIN

__all__ = ["PLUGIN"]
