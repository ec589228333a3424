"""Human pose with the boxes given (the ground-truth-box protocol): PCK@0.1, OKS, COCO's AP."""

from fcbench.tasks.pose.task import PLUGIN

__all__ = ["PLUGIN"]
