"""Words, vocabulary and the caption decoder: a two-layer Transformer that attends to the neck's cells.

neck [B, D, h, w] -> cells [B, h w, D] -> keys and values of each layer, once
words so far [B, T] -> embedding + position -> 2 x (causal attention, attention to cells, GELU network) -> [B, T, V]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import ProbabilisticHead

BOS, EOS, UNK = 0, 1, 2
PAD = -100  # Label of a position without a word: it has no loss
N_SPECIAL = 3
N_LAYERS = 2
HEAD_WIDTH = 32

Cache = tuple[Tensor, Tensor]  # Keys and values, each [B, heads, T, D / heads]


def words_of(caption: str) -> tuple[str, ...]:
    """Lower-case words: apostrophes are dropped, all other punctuation separates.

    >>> words_of("A man's red-hot stove.")
    ('a', 'mans', 'red', 'hot', 'stove')
    """
    bare = caption.lower().replace("'", "").replace("\u2019", "")
    return tuple(re.findall(r"[^\W_]+", bare))


def min_count(n_captions: int) -> int:
    """Minimum number of occurrences for a token of its own: 1 in small sets, 5 in sets as large as COCO."""
    if n_captions < 1_000:
        return 1
    return 2 if n_captions < 50_000 else 5


@dataclass(frozen=True)
class Vocabulary:
    """Words by index; the first indices are <bos>, <eos>, <unk>."""

    words: tuple[str, ...]
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        table = {w: i + N_SPECIAL for i, w in enumerate(self.words)}
        object.__setattr__(self, "index", table)

    @classmethod
    def count(cls, captions: Iterable[Sequence[str]]) -> Vocabulary:
        """The words that occur at least `min_count` times, sorted."""
        counts: Counter[str] = Counter()
        n_captions = 0
        for words in captions:
            n_captions += 1
            counts.update(words)
        if not counts:
            raise FcbenchError(f"captioning needs words, got none in {n_captions} training captions")
        least = min_count(n_captions)
        return cls(tuple(sorted(w for w, n in counts.items() if n >= least)))

    def __len__(self) -> int:
        return len(self.words) + N_SPECIAL

    def encode(self, words: Sequence[str]) -> list[int]:
        """Indices of words, <unk> for unknown ones."""
        return [self.index.get(w, UNK) for w in words]

    def decode(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Words up to <eos>; special tokens are left out."""
        tokens = list(tokens)
        end = tokens.index(EOS) if EOS in tokens else len(tokens)
        return tuple(self.words[t - N_SPECIAL] for t in tokens[:end] if t >= N_SPECIAL)


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """The references of a batch of images."""

    captions: tuple[tuple[str, ...], ...]  # of each image, as strings
    references: tuple[tuple[tuple[str, ...], ...], ...]  # of each image, as words


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer that can continue from cached keys and values. `width`: D, a multiple of `HEAD_WIDTH`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n_heads = width // HEAD_WIDTH
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out1 = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out2 = nn.Linear(width, width)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def look(self, cells: Tensor) -> Cache:
        """Keys and values of cells [B, N, D]."""
        keys, values = self.key_value(cells).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, cells: Cache, past: Cache | None) -> tuple[Tensor, Cache]:
        """Words x [B, T, D] after those in ``past`` (then T is 1); also returns the cache with them."""
        q, k, v = (self._split(t) for t in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.out1(self._join(mixed))
        seen = F.scaled_dot_product_attention(self._split(self.query(self.norm2(x))), *cells)
        x = x + self.out2(self._join(seen))
        return x + self.mlp(self.norm3(x)), (k, v)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, heads, T, D / heads]."""
        return x.unflatten(-1, (self.n_heads, HEAD_WIDTH)).transpose(1, 2)

    @staticmethod
    def _join(x: Tensor) -> Tensor:
        """[B, heads, T, D / heads] to [B, T, D]."""
        return x.transpose(1, 2).flatten(2)


class CaptionHead(nn.Module, ProbabilisticHead):
    """Captions from neck outputs: [B, D, h, w] to word indices, greedy. `width`: D, a multiple of `HEAD_WIDTH`.
    `vocabulary`: the words that it can output; V with the special tokens. `max_words`: longest caption."""

    def __init__(self, width: int, vocabulary: Vocabulary, max_words: int) -> None:
        super().__init__()
        if width < 1 or width % HEAD_WIDTH:
            raise FcbenchError(f"neck width must be a multiple of {HEAD_WIDTH} for captioning, got {width}")
        self.vocabulary = vocabulary
        self.max_words = max_words
        self.embed = nn.Embedding(len(vocabulary), width)
        self.position = nn.Parameter(torch.empty(max_words + 1, width))
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)
        self.norm_cells = nn.LayerNorm(width)
        self.layers = nn.ModuleList(DecoderLayer(width) for _ in range(N_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, len(vocabulary))

    def look(self, x: Tensor) -> list[Cache]:
        """Keys and values of the cells of x [B, D, h, w], one pair per layer."""
        cells = self.norm_cells(x.flatten(2).transpose(1, 2))
        return [cast(DecoderLayer, layer).look(cells) for layer in self.layers]

    def logits(self, seen: list[Cache], tokens: Tensor) -> Tensor:
        """Logits [R, T, V] of the word after each of tokens [R, T] (teacher forcing); ``seen`` has R rows."""
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for layer, cells in zip(self.layers, seen):
            x, _ = layer(x, cells, None)
        out: Tensor = self.out(self.norm(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Greedy captions of x [B, D, h, w]: int64 [B, T], T <= max_words, <eos> after the end."""
        seen = self.look(x)
        past: list[Cache | None] = [None] * len(self.layers)
        token = torch.full((len(x), 1), BOS, device=x.device)
        ended = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        captions = []
        for t in range(self.max_words):
            y = self.embed(token) + self.position[t]
            for i, layer in enumerate(self.layers):
                y, past[i] = layer(y, seen[i], past[i])
            logits = self.out(self.norm(y))
            logits[..., [BOS, UNK]] = -torch.inf
            token = logits.argmax(-1).masked_fill(ended, EOS)
            captions.append(token)
            ended = ended | (token == EOS)
            if bool(ended.all()):
                break
        return torch.cat(captions, dim=1)

    def loss(self, x: Tensor, batch: CaptionBatch) -> Tensor:
        """Mean cross-entropy per word in nats, teacher-forced. In training mode over one reference per image, drawn
        with torch's generator; otherwise over all."""
        tokens, image = self._tokens(batch)
        chosen = torch.arange(len(image))
        if self.training:
            counts = torch.bincount(image, minlength=len(x))
            drawn = (torch.rand(len(counts)) * counts).long()
            chosen = counts.cumsum(0) - counts + drawn
        logits, tokens = self._teach(x, tokens[chosen], image[chosen])
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=PAD)

    def predict(self, x: Tensor, batch: CaptionBatch) -> list[tuple[str, ...]]:
        """Greedy captions as words, one per image."""
        return [self.vocabulary.decode(t) for t in self(x).cpu().tolist()]

    def log_likelihood(self, x: Tensor, batch: CaptionBatch) -> Tensor:
        """Log-probability in nats of a whole reference with its <eos>, mean over each image's references: [B]."""
        tokens, image = self._tokens(batch)
        logits, tokens = self._teach(x, tokens, image)
        image = image.to(x.device)
        nll = F.cross_entropy(logits.mT, tokens, ignore_index=PAD, reduction="none")  # [R, T]
        total = nll.new_zeros(len(x)).index_add(0, image, -nll.sum(1))
        return total / torch.bincount(image, minlength=len(x))

    def _tokens(self, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """All references [R, T] int64 with <eos>, then `PAD`, and the image of each [R]."""
        encode, most = self.vocabulary.encode, self.max_words
        rows = [torch.tensor([*encode(words[:most]), EOS]) for captions in batch.references for words in captions]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        counts = torch.tensor([len(c) for c in batch.references])
        return tokens, torch.arange(len(counts)).repeat_interleave(counts)

    def _teach(self, x: Tensor, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [R, T, V] of tokens [R, T] given their images' cells and the words before; and the tokens."""
        tokens, image = (t.to(x.device, non_blocking=True) for t in (tokens, image))
        before = F.pad(tokens[:, :-1].clamp(min=0), (1, 0), value=BOS)
        seen = [(k[image], v[image]) for k, v in self.look(x)]
        return self.logits(seen, before), tokens
