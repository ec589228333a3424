"""Training and test data of readouts and codecs: the readable samples, with their features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fcbench.core.cache import Cache, digest
from fcbench.core.features import Encoder, FeaturesDtype, FeatureSpec, FeatureStats, require_split_points
from fcbench.core.progress import Report
from fcbench.core.samples import Dataset, Sample, require_one_size
from fcbench.features.extract import BadImage, extract
from fcbench.features.feature_set import FeatureSet
from fcbench.features.statistics import stats_of

BATCH = 64


class Readable(Dataset):
    """The readable samples of a data set, numbered as in its feature set (a `Dataset`)."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, indices
        self.name, self.split, self.revision = dataset.name, dataset.split, dataset.revision
        if tuple(indices) != tuple(range(len(indices))):
            self.revision += f"-{digest({'indices': tuple(indices)})}"
        self.tasks, self.meta, self.image_size_px = dataset.tasks, dataset.meta, dataset.image_size_px
        self.absent, self.resizing, self.has_images = dataset.absent, dataset.resizing, dataset.has_images

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def targets(self, index: int) -> Mapping[str, Any]:
        """Targets of a sample."""
        return self._dataset.targets(self._indices[index])


@dataclass(frozen=True, slots=True)
class Split:
    """One split of the data with its features."""

    dataset: Readable
    features: FeatureSet


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Features of both splits: an encoder's, or derived from them.

    Attributes:
        split_points: where the features leave the encoder.
        split_point: its name in rows; derived features have another name.
        stats: of the training features, the same for every codec.
    """

    encoder: Encoder
    split_points: tuple[str, ...]
    split_point: str
    train: Split
    test: Split
    stats: Mapping[str, FeatureStats]


def split_points_of(encoder: Encoder, name: str | None) -> tuple[str, ...]:
    """Split points for a name: one, a group of the encoder's, or several joined by plus signs, fine to coarse.

    Args:
        name: None for the encoder's default.

    Raises:
        FcbenchError: the encoder has no such split point.
    """
    parts = (name or encoder.default_split_point).split("+")
    require_split_points(encoder.name, [*encoder.specs, *encoder.groups], parts)
    names = [point for part in parts for point in encoder.groups.get(part, (part,))]
    return tuple(n for n in encoder.specs if n in names)


def open_source(
    data: Mapping[str, Dataset],
    encoder: Encoder,
    split_point: str | None,
    cache: Cache,
    report: Report,
    on_bad_image: BadImage = "stop",
    tasks: Sequence[str] = (),
    dtype: FeaturesDtype = "float32",
) -> Source:
    """Features of the splits ``train`` and ``test`` at a split point, extracted if the cache lacks them."""
    names, splits = split_points_of(encoder, split_point), {}
    require_one_size(*data.values())
    for which, dataset in data.items():
        features = reported_extract(dataset, encoder, names, cache, report, which, on_bad_image, tasks, dtype)
        splits[which] = Split(Readable(dataset, features.indices), features)
    stats = kept_stats(splits["train"].features, cache)
    name = split_point or encoder.default_split_point
    return Source(encoder, names, name, splits["train"], splits["test"], stats)


def kept_stats(train: FeatureSet, cache: Cache) -> dict[str, FeatureStats]:
    """Statistics of training features, stored beside them; they change when formerly unreadable samples are read."""
    name = f"stats-{digest({'indices': train.indices})}.safetensors" if train.skipped else "stats.safetensors"
    return stats_of(train, cache.features / train.key / name)


def reported_extract(
    dataset: Dataset,
    encoder: Encoder,
    split_points: Sequence[str],
    cache: Cache,
    report: Report,
    what: str,
    on_bad_image: BadImage = "stop",
    tasks: Sequence[str] = (),
    dtype: FeaturesDtype = "float32",
) -> FeatureSet:
    """`extract` as a part of a run. `what` names the samples."""
    require_one_size(dataset)
    with report.part(f"{encoder.name}: features of {what}") as advance:
        return extract(
            dataset,
            encoder,
            split_points,
            cache,
            on_bad_image=on_bad_image,
            dtype=dtype,
            tasks=tasks,
            advance=advance,
        )


def left_out(which: str, features: FeatureSet) -> list[str]:
    """Messages about the samples of a split that could not be read."""
    n = len(features.skipped)
    count = [f"{n} of {n + len(features)} {which} samples left out"] if n else []
    return [f"left out: {skipped.reason}" for skipped in features.skipped] + count


# ------------------------------------------------------------------------------------------- derived
def derive(
    source: Source, split_point: str, key: str, spec: FeatureSpec, function: Callable[[FeatureSet], Tensor]
) -> Source:
    """The same samples with features computed by a function, kept in memory only.

    Args:
        key: name of the features; models trained on them are found by this name.
        spec: of the single map.
        function: computes [N, C, h, w] from a set.
    """
    train, test = (
        Split(split.dataset, derived_set(split.features, f"{key}-{which}", spec, function(split.features)))
        for which, split in (("train", source.train), ("test", source.test))
    )
    return Source(source.encoder, source.split_points, split_point, train, test, stats_of(train.features))


def derived_set(features: FeatureSet, key: str, spec: FeatureSpec, array: Tensor) -> FeatureSet:
    """The samples of a set with other features [N, C, h, w]."""
    grid = (int(array.shape[-2]), int(array.shape[-1]))
    return FeatureSet(
        key,
        features.samples,
        features.skipped,
        features.image_px,
        {spec.name: spec},
        {spec.name: grid},
        {spec.name: array},
    )


def mapped(features: FeatureSet, function: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
    """Results [N, D, h, w] of a function of maps [B, C, h, w] over a whole set, on the CPU."""
    with torch.no_grad():  # not inference mode: codecs and necks are trained on these
        return torch.cat([function(maps).cpu() for maps in features.batches(BATCH)])
