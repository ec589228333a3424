"""Parts that the points of a suite share: its data sets, tasks and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.codecs import codec_kind
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.files import sha256_of
from fcbench.core.progress import Report
from fcbench.core.samples import DataOptions, Dataset, require_tasks
from fcbench.core.tasks import Task, TaskModel, build_tail, require_labels
from fcbench.features.encoding import build_encoder
from fcbench.features.feature_set import FeatureSet
from fcbench.features.source import Source, kept_stats, open_source, reported_extract, split_points_of
from fcbench.measure.suite import Suite
from fcbench.training.targets import Targets
from fcbench.transmit.coders import HERE, Coders


class Study:
    """A suite at work on a device: each part is made on first use, once.

    Tasks and targets are those of the samples that could be read.

    Attributes:
        coders: that code its samples.
    """

    coders: Coders = HERE

    def __init__(self, suite: Suite, data: Mapping[str, Dataset], cache: Cache, device: torch.device) -> None:
        self.suite, self.data, self.cache, self.device = suite, data, cache, device
        self._made: dict[tuple[Any, ...], Any] = {}

    def of(self, suite: Suite, cache: Cache | None = None) -> Study:
        """A study of part of the suite, or with another budget or cache; parts that exist are shared."""
        other = Study(suite, self.data, cache or self.cache, self.device)
        other._made, other.coders = self._made, self.coders
        return other

    @property
    def revision(self) -> str:
        """Revision of both splits of the data."""
        return "/".join(dict.fromkeys(d.revision for d in self.data.values()))

    def source(self, encoder: Encoder, report: Report) -> Source:
        """Features of an encoder at the suite's split point."""
        suite = self.suite
        how = suite.on_bad_image, suite.tasks, suite.features_dtype
        return open_source(self.data, encoder, suite.split_point, self.cache, report, *how)

    def features(self, which: str, encoder: Encoder, report: Report) -> FeatureSet:
        """Features of one split; the training split also has its statistics."""
        suite, points = self.suite, split_points_of(encoder, self.suite.split_point)
        how = suite.on_bad_image, suite.tasks, suite.features_dtype
        extracted = reported_extract(self.data[which], encoder, points, self.cache, report, which, *how)
        if which == "train":
            kept_stats(extracted, self.cache)
        return extracted

    def encoder(self, name: str) -> Encoder:
        """The encoder for a name in ``suite.encoders``."""
        return self._once(("encoder", name), lambda: build_encoder(name, self.suite.weights, self.device))

    def task(self, name: str, source: Source) -> Task:
        """A task on the samples of a source."""
        train, test = source.train, source.test
        key = "task", name, train.features.indices, test.features.indices
        labelled = test if self.suite.codec_data else train
        return self._once(key, lambda: registry.get("task", name).build(labelled.dataset, test.dataset))

    def targets(self, which: Literal["train", "test"], task: str, source: Source) -> Targets:
        """Targets of the samples of a source."""
        split = source.train if which == "train" else source.test
        key = "targets", which, task, split.features.indices
        return self._once(key, lambda: Targets(split.dataset, task))

    def task_model(self, task: str, source: Source) -> TaskModel | None:
        """The task model whose decoder is a task's head; None if the head is trained."""
        if self.suite.head != "frozen":
            return None
        family, variant, weights = self.suite.task_model(task, source.train.dataset.meta)
        image_px = source.train.features.image_px
        key = "task model", task, image_px, source.train.features.indices, source.test.features.indices
        build = registry.get("taskmodel", family).build
        return self._once(key, lambda: build(variant, weights, self.task(task, source), image_px, self.device))

    def task_weights(self, task: str) -> str | None:
        """What determines the weights named for a task's model: ``random``, or the hash of their file; None for its own
        ones."""
        typed = self.suite.task_weights.get(task)
        path = Path(typed or "")
        return self._once(("task weights", typed), lambda: sha256_of(path)) if path.is_file() else typed

    def tail(self, task: str, source: Source) -> Any:
        """The `Tail` of a source's encoder that is a task's head; None for other heads.

        Raises:
            FcbenchError: the encoder has no such tail, or the data set's classes are not the network's.
        """
        if self.suite.head != "tail":
            return None
        encoder, image_px = source.encoder, source.train.features.image_px
        key = "tail", encoder.name, source.split_points, task, image_px
        tail = self._once(key, lambda: build_tail(encoder, task, source.split_points, image_px))
        if tail.label_names:
            require_labels(encoder.name, tail.label_names, self.suite.dataset, source.test.dataset.meta.names(task))
        return tail

    def _once(self, key: tuple[Any, ...], make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def open_study(suite: Suite, cache_dir: Path, device: torch.device) -> Study:
    """Open a suite's data sets.

    Raises:
        FcbenchError: bad input, or a cache that cannot be used.
    """
    return Study(suite, open_data(suite, cache_dir), Cache(cache_dir, suite.store_features).make(), device)


def device_of(name: str) -> torch.device:
    """The device for a name: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes a GPU if there is one.

    From then on a GPU computes convolutions in float32, not TF32, as PyTorch's default does for matrix products:
    features and losses then differ from a CPU's only in their last bits.

    Raises:
        FcbenchError: the device cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).tolist()  # a device without values, such as meta, fails here
        torch.backends.cudnn.allow_tf32 = False
        return torch.device(name)
    except Exception as error:  # each backend raises its own type
        raise FcbenchError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): try --device cpu"
        ) from error


def open_data(suite: Suite, cache_dir: Path) -> dict[str, Dataset]:
    """``train`` and ``test`` of the suite's data set; ``train`` of another one if codecs have their own."""
    of_tasks, of_codecs = (suite.dataset, suite.data_root), (suite.codec_data or "", suite.codec_data_root)
    how = DataOptions(None, cache_dir, suite.image_size_px, metric_command=suite.metric_command)
    train = _opened("train", *(of_codecs if suite.codec_data else of_tasks), suite.n_train, how)
    test = _opened("test", *of_tasks, suite.n_test, how)
    if suite.metric_command and not test.meta.commands:
        raise FcbenchError("--metric-command reads decoded features of --features FOLDER alone: give both")
    remote = [c for c in suite.codecs if codec_kind(c)[0] == "image"]
    if remote and not test.has_images:
        raise FcbenchError(f"data set {test.name!r} has no images that {remote[0]} could code: leave it out")
    require_tasks(suite.tasks, *([] if suite.codec_data else [train]), test)
    return {"train": train, "test": test}


def _opened(
    split: Literal["train", "test"], name: str, root: Path | None, limit: int | None, options: DataOptions
) -> Dataset:
    plugin = registry.get("dataset", name)
    if plugin.needs_root and root is None:
        raise FcbenchError(
            f"data set {name!r} is read from disk: give --data-root DIR, or --codec-data DATASET:DIR "
            f"({registry.summary('dataset', name)})"
        )
    return plugin.open(split, replace(options, root=root, limit=limit))
