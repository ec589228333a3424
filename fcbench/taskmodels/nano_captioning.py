"""Embedded captioning of scenes: small convolutional encoder, two-layer Transformer decoder, 0.6 M parameters."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fcbench.taskmodels.shared.nano import WIDTH, NanoPlugin
from fcbench.tasks.captioning import CaptioningTask
from fcbench.tasks.captioning.head import CaptionHead, Vocabulary

DECODER_WIDTH = 64


class Plugin(NanoPlugin):
    """Embedded captioning."""

    def facts(self, task: CaptioningTask) -> dict[str, Any]:
        return {"words": list(task.vocabulary.words), "max_words": task.max_words}

    def make_blocks(self) -> nn.Module:
        return nn.Conv2d(WIDTH, DECODER_WIDTH, 1)

    def make_head(self, facts: Mapping[str, Any], grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        vocabulary = Vocabulary(tuple(facts["words"]))
        return CaptionHead(DECODER_WIDTH, vocabulary, facts["max_words"])

    def misfit(self, facts: Mapping[str, Any], task: CaptioningTask) -> str:
        unknown = sorted(set(task.vocabulary.words) - set(facts["words"]))
        if not unknown:
            return ""
        return (
            f"its decoder cannot output {len(unknown)} of the task's {len(task.vocabulary.words)} words: "
            f"{', '.join(unknown[:8])}"
        )


PLUGIN = Plugin("nano_captioning", "captioning")
