"""Image captioning: CIDEr-D and corpus BLEU-4 over words."""

from fcbench.tasks.captioning.task import PLUGIN

__all__ = ["PLUGIN"]
