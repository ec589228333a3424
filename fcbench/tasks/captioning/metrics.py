"""Caption metrics that are functions of sums over samples: corpus BLEU-4 and CIDEr-D.

Both take lists of words. They equal pycocoevalcap's ``Bleu(4)`` and ``Cider`` on the same words; those only score whole
sets, while the bootstrap needs samples.

References:
    Papineni et al., "BLEU", ACL 2002. Vedantam et al., "CIDEr", CVPR 2015.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MAX_N = 4
CIDER_SIGMA = 6.0  # of the length penalty, in bigrams
CIDER_SCALE = 10.0

Words = Sequence[str]
Ngram = tuple[str, ...]


def ngrams(words: Words) -> Counter[Ngram]:
    """Counts of all n-grams, n = 1 to 4."""
    return Counter(tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1))


def bleu_statistics(candidate: Words, references: Sequence[Words]) -> np.ndarray:
    """Counts of one caption that add up over a set, float64 [10]: clipped matches for n = 1 to 4, candidate n-grams for
    n = 1 to 4, candidate length, length of the closest reference."""
    most: Counter[Ngram] = Counter()
    for reference in references:
        most |= ngrams(reference)
    matches = [0] * MAX_N
    for gram, count in (ngrams(candidate) & most).items():
        matches[len(gram) - 1] += count
    length = len(candidate)
    totals = [max(0, length - n) for n in range(MAX_N)]
    closest = min((abs(len(r) - length), len(r)) for r in references)[1]
    return np.asarray([*matches, *totals, length, closest], np.float64)


def bleu4(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU-4, [...], of summed `bleu_statistics` [..., 10], with pycocoevalcap's small terms."""
    matches, totals = sums[..., :MAX_N], sums[..., MAX_N : 2 * MAX_N]
    length, closest = sums[..., -2], sums[..., -1]
    precision = np.prod((matches + 1e-15) / (totals + 1e-9), axis=-1) ** (1 / MAX_N)
    relative = (length + 1e-15) / (closest + 1e-9)
    brevity = np.exp(1 - 1 / np.minimum(relative, 1))
    return precision * brevity


@dataclass(frozen=True, slots=True)
class Weighted:
    """A caption as TF-IDF vectors."""

    weights: dict[Ngram, float]  # of each n-gram
    norms: tuple[float, ...]  # Euclidean norm for n = 1 to 4
    length: int  # number of bigrams (the length that CIDEr-D compares)


class Cider:
    """CIDEr-D of single samples, with the document frequencies of a fixed set of references. `references`: captions of
    each image of the set."""

    def __init__(self, references: Iterable[Sequence[Words]]) -> None:
        frequency: Counter[Ngram] = Counter()
        n_images = 0
        for captions in references:
            n_images += 1
            frequency.update(set().union(*(ngrams(c) for c in captions)))
        self.unseen = math.log(max(1, n_images))  # for n-grams in no reference
        self.idf = {g: self.unseen - math.log(n) for g, n in frequency.items()}

    def weigh(self, words: Words) -> Weighted:
        """TF-IDF vectors of a caption."""
        counts = ngrams(words)
        squares = [0.0] * MAX_N
        weights = {}
        for gram, count in counts.items():
            weight = count * self.idf.get(gram, self.unseen)
            weights[gram] = weight
            squares[len(gram) - 1] += weight**2
        norms = tuple(math.sqrt(s) for s in squares)
        return Weighted(weights, norms, max(0, len(words) - 1))

    def score(self, candidate: Words, references: Sequence[Words]) -> float:
        """CIDEr-D of a caption, 0 to 10."""
        weighted = self.weigh(candidate)
        each = [self._similarity(weighted, self.weigh(r)) for r in references]
        return CIDER_SCALE * sum(each) / len(each)

    @staticmethod
    def _similarity(candidate: Weighted, reference: Weighted) -> float:
        dots = [0.0] * MAX_N
        for gram, weight in candidate.weights.items():
            other = reference.weights.get(gram, 0.0)
            dots[len(gram) - 1] += min(weight, other) * other
        pairs = zip(dots, candidate.norms, reference.norms)
        cosine = sum(d / (a * b) for d, a, b in pairs if a and b) / MAX_N
        gap = candidate.length - reference.length
        return cosine * math.exp(-(gap**2) / (2 * CIDER_SIGMA**2))
