"""Detections: label, score to a thousandth, box to a quarter pixel."""

from fcbench.labels.shared.detections import CODER as PLUGIN

__all__ = ["PLUGIN"]
