"""Embedded data: procedural scenes with exact ground truth for every task. No download."""

from fcbench.data.scenes.dataset import PLUGIN

__all__ = ["PLUGIN"]
