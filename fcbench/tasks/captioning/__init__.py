"""Image captioning: CIDEr-D and corpus BLEU-4 over words.

Captions are split into words by `fcbench.tasks.captioning.head.words_of` (lower case, no punctuation), not by the PTB
tokenizer, which needs Java: the two differ in 7 of 250 captions of COCO, which changed CIDEr from 0.930 to 0.932 and
BLEU-4 from 0.201 to 0.202. CIDEr-D is on pycocoevalcap's scale, 0 to 10; document frequencies are the whole test set's.

A head's ``predict`` returns B captions, each a string or a sequence of words. The batch holds the references as strings
and as words; a head turns them into its own tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Dataset, require_tasks
from fcbench.core.tasks import MetricSpec, Task, TaskPlugin
from fcbench.tasks.captioning.head import CaptionBatch, CaptionHead, Vocabulary, words_of
from fcbench.tasks.captioning.metrics import Cider, bleu4, bleu_statistics
from fcbench.tasks.shared.targets import ratio

MAX_WORDS = 30  # Longer training captions are cut to this


def references_of(target: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Reference captions as words."""
    captions = target["captioning"]
    if isinstance(captions, str) or not captions:
        raise FcbenchError(f"captioning target must be a non-empty tuple of captions, got {captions!r}")
    return tuple(words_of(c) for c in captions)


WORDS = "lower-case words, no punctuation"  # The tokenizer, where published values use PTB's


def caption_values(sums: np.ndarray) -> dict[str, np.ndarray]:
    """``cider`` (0..10) and ``bleu4``, [...], of sums [..., 12]."""
    n = sums[..., 1]
    return {"cider": ratio(sums[..., 0], n), "bleu4": np.where(n > 0, bleu4(sums[..., 2:]), np.nan)}


class CaptioningTask(Task):
    """Captions in a data set's vocabulary. `vocabulary`: words that the head can output. `max_words`: longest caption
    that it outputs. `cider`: CIDEr-D with the test references' document frequencies."""

    name = "captioning"
    metrics: tuple[MetricSpec, ...] = (MetricSpec("cider", True, "0..10", WORDS), MetricSpec("bleu4", True, "", WORDS))
    n_statistics = 12

    def __init__(self, vocabulary: Vocabulary, max_words: int, cider: Cider) -> None:
        self.vocabulary = vocabulary
        self.max_words = max_words
        self.cider = cider

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return CaptionHead(width, self.vocabulary, self.max_words)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> CaptionBatch:
        """The references."""
        return CaptionBatch(tuple(tuple(t[self.name]) for t in targets), tuple(references_of(t) for t in targets))

    def statistics(self, prediction: Sequence[str | Sequence[str]], batch: CaptionBatch) -> np.ndarray:
        """CIDEr-D, 1, and `bleu_statistics` of each predicted caption: float64 [B, 12]."""
        if len(prediction) != len(batch.references):
            raise FcbenchError(
                f"a head predicted {len(prediction)} captions for {len(batch.references)} images, expected one each"
            )
        return self.score([words_of(c) if isinstance(c, str) else tuple(c) for c in prediction], batch.references)

    def score(self, captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> np.ndarray:
        """Statistics of captions (as words) against the references of each image: float64 [B, 12]."""
        rows = [[self.cider.score(c, r), 1.0, *bleu_statistics(c, r)] for c, r in zip(captions, references)]
        return np.asarray(rows, np.float64).reshape(len(rows), self.n_statistics)

    values = staticmethod(caption_values)


class CaptioningPlugin(TaskPlugin):
    """Captioning."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        require_tasks(["captioning"], train, test)
        captions = [words for i in range(len(train)) for words in references_of(train.targets(i))]
        vocabulary = Vocabulary.count(captions)
        longest = max(len(words) for words in captions)
        cider = Cider(references_of(test.targets(i)) for i in range(len(test)))
        return CaptioningTask(vocabulary, min(longest, MAX_WORDS), cider)

    values = staticmethod(caption_values)


PLUGIN = CaptioningPlugin()
