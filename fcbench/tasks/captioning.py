"""Image captioning: CIDEr-D and corpus BLEU-4 over words.

Captions are cut into words by `fcbench.tasks._caption_head.words_of` (lower case, no punctuation), not by the PTB
tokenizer that needs Java: values compare with each other, not with published ones. CIDEr-D is on pycocoevalcap's
scale, 0 to 10, its document frequencies always those of the whole test set's references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.tasks._caption_head import BOS, EOS, CaptionHead, Vocabulary, words_of
from fcbench.tasks._caption_metrics import Cider, bleu4, bleu_statistics
from fcbench.tasks._common import ratio, require
from fcbench.types import Dataset, FcbenchError, MetricSpec, Task

MAX_WORDS = 30
"""Longer training captions are cut to this."""

PAD = -100
"""Token of no word; no loss."""


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """The references of a batch of images.

    Attributes:
        references: of each image, its captions as words.
        tokens: [R, T] int64, all captions with <eos>, then `PAD`.
        image: [R] int64, the image of each.
    """

    references: tuple[tuple[tuple[str, ...], ...], ...]
    tokens: Tensor
    image: Tensor


def references_of(target: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Reference captions as words.

    Raises:
        FcbenchError: there is none, or what came is not a list of strings.
    """
    captions = target["captioning"]
    if isinstance(captions, str) or not captions:
        raise FcbenchError(
            f"captioning target {captions!r} came; it must be a non-empty tuple of captions"
        )
    return tuple(words_of(c) for c in captions)


class CaptioningTask:
    """Captions in a data set's vocabulary.

    Args:
        vocabulary: words that the head can say.
        max_words: longest caption that it says.
        cider: CIDEr-D with the test references' document frequencies.
    """

    name = "captioning"
    metrics: tuple[MetricSpec, ...] = (
        MetricSpec("cider", True, "0..10"),
        MetricSpec("bleu4", True),
    )
    n_statistics = 12

    def __init__(self, vocabulary: Vocabulary, max_words: int, cider: Cider) -> None:
        self.vocabulary = vocabulary
        self.max_words = max_words
        self.cider = cider

    def head(
        self, width: int, grid: tuple[int, int], image_px: tuple[int, int]
    ) -> nn.Module:
        """A new head: [B, D, h, w] to word indices [B, T].

        Raises:
            FcbenchError: a width that attention cannot use.
        """
        return CaptionHead(width, len(self.vocabulary), self.max_words)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> CaptionBatch:
        """References as words and as tokens.

        Raises:
            FcbenchError: an image without captions.
        """
        references = tuple(references_of(t) for t in targets)
        rows = [
            torch.tensor([*self.vocabulary.encode(words[: self.max_words]), EOS])
            for captions in references
            for words in captions
        ]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        counts = torch.tensor([len(c) for c in references])
        image = torch.arange(len(references)).repeat_interleave(counts)
        return CaptionBatch(references, tokens, image)

    def loss(self, head: nn.Module, x: Tensor, batch: CaptionBatch) -> Tensor:
        """Mean cross-entropy of a word in nats, teacher-forced.

        In training mode over one reference an image, drawn by torch's generator; otherwise over all.
        """
        own = cast(CaptionHead, head)
        chosen = torch.arange(len(batch.image))
        if own.training:
            counts = torch.bincount(batch.image, minlength=len(x))
            drawn = (torch.rand(len(counts)) * counts).long()
            chosen = counts.cumsum(0) - counts + drawn
        tokens = batch.tokens[chosen].to(x.device)
        image = batch.image[chosen].to(x.device)
        before = F.pad(tokens[:, :-1].clamp(min=0), (1, 0), value=BOS)
        seen = [(k[image], v[image]) for k, v in own.look(x)]
        logits = own.logits(seen, before)
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=PAD)

    def statistics(self, head: nn.Module, x: Tensor, batch: CaptionBatch) -> np.ndarray:
        """CIDEr-D, 1, and `bleu_statistics` of each greedy caption: float64 [B, 12]."""
        with torch.no_grad():
            tokens = head(x).cpu().tolist()
        said = [self.vocabulary.decode(t) for t in tokens]
        return self.score(said, batch.references)

    def score(
        self,
        captions: Sequence[Sequence[str]],
        references: Sequence[Sequence[Sequence[str]]],
    ) -> np.ndarray:
        """Statistics of captions (as words) against the references of each image: float64 [B, 12]."""
        rows = [
            [self.cider.score(c, r), 1.0, *bleu_statistics(c, r)]
            for c, r in zip(captions, references)
        ]
        return np.asarray(rows, np.float64).reshape(len(rows), self.n_statistics)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """``cider`` (0..10) and ``bleu4``, [...], of sums [..., 12]."""
        n = sums[..., 1]
        return {
            "cider": ratio(sums[..., 0], n),
            "bleu4": np.where(n > 0, bleu4(sums[..., 2:]), np.nan),
        }


class CaptioningPlugin:
    """Plug-in of the task."""

    summary = "captioning: CIDEr-D, BLEU-4 (words, not PTB tokens)"

    def build(self, train: Dataset, test: Dataset) -> Task:
        """Bind to a data set.

        Raises:
            FcbenchError: it has no captions, or those of the training split hold no word.
        """
        require("captioning", train, test)
        captions = [
            words
            for i in range(len(train))
            for words in references_of(train.targets(i))
        ]
        vocabulary = Vocabulary.count(captions)
        longest = max(len(words) for words in captions)
        cider = Cider(references_of(test.targets(i)) for i in range(len(test)))
        return CaptioningTask(vocabulary, min(longest, MAX_WORDS), cider)


PLUGIN = CaptioningPlugin()
