"""What the points of one encoder and seed share: features, readouts, codecs. Each is made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.cache import digest
from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder, FeatureStats
from fcbench.core.files import write_atomically
from fcbench.core.progress import Report
from fcbench.core.samples import Dataset
from fcbench.core.tasks import Task, TaskModel
from fcbench.features.extract import FeatureStore, extract
from fcbench.features.source import Readable, Split, splits_of
from fcbench.measure.suite import Suite
from fcbench.training import loop
from fcbench.training.codec import fit_codec
from fcbench.training.readout import Adapter, Readout, TaskLoss, fit_readout, frozen_loss
from fcbench.training.targets import Targets
from fcbench.transmit import checkpoint

VERSION = 4
"""Of how readouts and codecs are trained: raise it when that changes, and nothing old is taken from the cache."""
PREPARE_SAMPLES = 256
"""Training samples that codecs and adapters take their initial values from."""


class Bench:
    """One encoder on one data set, with one seed."""

    def __init__(
        self,
        suite: Suite,
        data: Mapping[str, Dataset],
        encoder: Encoder,
        seed: int,
        cache_dir: Path,
        device: torch.device,
        report: Report,
    ) -> None:
        self.suite, self.encoder, self.seed, self.device, self.report = (suite, encoder, seed, device, report)
        self.split_point = suite.split or encoder.default_split
        self.splits = splits_of(encoder, self.split_point)
        self.data, self.cache_dir, self.models = (data, cache_dir, cache_dir / "models")
        try:
            self.models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FcbenchError(
                f"cannot use cache folder {cache_dir}: {error.strerror}; give another --cache-dir"
            ) from error
        self._readouts: dict[str, tuple[Task, Readout]] = {}
        self._task_models: dict[str, TaskModel] = {}
        self.costs: dict[str, Any] = {}  # `complexity` keeps here what it counted
        self._targets: dict[tuple[str, str], Targets] = {}

    # --------------------------------------------------------------------------------------- features
    def _split(self, which: Literal["train", "test"]) -> Split:
        store = self._extract(self.data[which], self.encoder, self.splits, which)
        for skipped in store.skipped:
            self.report.say(f"left out: {skipped.reason}")
        if store.skipped:
            self.report.say(f"{len(store.skipped)} of {len(self.data[which])} {which} samples left out")
        return Split(Readable(self.data[which], store.indices), store)

    def _extract(self, data: Dataset, encoder: Encoder, splits: Sequence[str], what: str) -> FeatureStore:
        with self.report.stage(f"{encoder.name}: features of {what}") as advance:
            return extract(
                data, encoder, splits, self.cache_dir, on_bad_image=self.suite.on_bad_image, progress=advance
            )

    @property
    def revision(self) -> str:
        """Revision of both splits of the data."""
        return "/".join(dict.fromkeys(d.revision for d in self.data.values()))

    @cached_property
    def train(self) -> Split:
        """Training split: fits codecs, necks and heads."""
        return self._split("train")

    @cached_property
    def test(self) -> Split:
        """Test split: everything that is reported."""
        return self._split("test")

    @cached_property
    def stats(self) -> dict[str, FeatureStats]:
        """Statistics of the training features, the same for every codec."""
        return self.train.store.stats()

    def targets(self, which: Literal["train", "test"], task: str) -> Targets:
        """Targets of a split."""
        key = which, task
        if key not in self._targets:
            split = self.train if which == "train" else self.test
            self._targets[key] = Targets(split.dataset, task)
        return self._targets[key]

    # ---------------------------------------------------------------------------------------- readouts
    def readout(self, name: str) -> tuple[Task, Readout]:
        """A task with its neck and head, trained on uncoded features, frozen."""
        if name not in self._readouts:
            self._readouts[name] = self._make_readout(name)
        return self._readouts[name]

    def task_model(self, name: str) -> TaskModel | None:
        """The task model whose decoder reads for a task; None where the head is trained."""
        if self.suite.head == "trained":
            return None
        if name not in self._task_models:
            family, variant, weights = self.suite.task_model(name, self.train.dataset.meta)
            self._task_models[name] = registry.get("taskmodel", family).build(
                variant, weights, self._task(name), self.train.store.image_px, self.device
            )
        return self._task_models[name]

    def _task(self, name: str) -> Task:
        task: Task = registry.get("task", name).build(self.train.dataset, self.test.dataset)
        return task

    def readout_key(self, name: str) -> dict[str, Any]:
        """All that determines a readout."""
        b, decoder = self.suite.budget, self.task_model(name)
        key = {
            "version": VERSION,
            "features": self.train.store.folder.name,
            "task": name,
            "neck": self.suite.neck,
            "head": self.suite.head,
            "seed": self.seed,
            "budget": (b.task_steps, b.task_batch, b.task_rate, b.width),
        }
        if decoder is not None:
            key |= {"head": decoder.name, "sha256": decoder.weights.sha256, "neck_loss": self.suite.neck_loss}
        return key

    def readout_path(self, name: str) -> Path:
        """Where a readout is kept."""
        return self.models / f"task-{digest(self.readout_key(name))}.safetensors"

    def _make_readout(self, name: str) -> tuple[Task, Readout]:
        suite, store = self.suite, self.train.store
        task, grid = self._task(name), next(iter(store.shapes.values()))
        torch.manual_seed(self.seed)
        neck = registry.get("neck", suite.neck).build(list(store.specs.values()), store.shapes, suite.budget.width)
        decoder, own = self.task_model(name), None
        if decoder is None:
            head = task.head(suite.budget.width, grid, store.image_px)
            model = Readout(self.stats, neck, head)
        else:
            own = self._own_features(decoder)
            adapter = Adapter(suite.budget.width, grid, own.stats(), own.shapes)
            model = Readout(self.stats, neck, decoder.head(), adapter)
        model.to(self.device)
        path = self.readout_path(name)
        what = "head" if decoder is None else f"adapter to {decoder.name}"
        with self.report.stage(f"{self.encoder.name}: {suite.neck} and {what}, {name}") as advance:
            if path.exists():
                _load_into(model, path)
            else:
                fit_readout(
                    model,
                    task,
                    store,
                    self.targets("train", name),
                    own,
                    suite.neck_loss,
                    suite.budget,
                    seed=self.seed,
                    resume=path.with_suffix(".resume"),
                    progress=advance,
                )
                write_atomically(path, save(_state(model)))
        return task, model.eval().requires_grad_(False)

    def _own_features(self, decoder: TaskModel) -> FeatureStore:
        """What a task model's own encoder gives for the training samples; for statistics alone, some of them do."""
        n = len(self.train.store)
        if self.suite.neck_loss == "task":
            n = min(n, PREPARE_SAMPLES)
        some = Readable(self.train.dataset, range(n))
        return self._extract(some, decoder.encoder, decoder.inputs, f"{n} samples")

    # ------------------------------------------------------------------------------------------ codecs
    def codec(self, point: OperatingPoint, task: str | None) -> Path:
        """Checkpoint of a codec at an operating point; with the task objective, of the one fitted to that task."""
        plugin, path = registry.get("codec", point.codec), self.codec_path(point, task)
        name = f"{self.encoder.name}: {point.label}" + (f" for {task}" if task else "")
        with self.report.part(f"{name}, {'training' if plugin.trained else 'tables'}") as advance:
            if not path.exists():
                self._make_codec(plugin, point, task, path, advance)
        return path

    def codec_path(self, point: OperatingPoint, task: str | None) -> Path:
        """Where the checkpoint of a codec is kept."""
        return self.models / f"codec-{digest(self._codec_key(point, task))}.safetensors"

    def sweep_of(self, codec: str, task: str | None) -> tuple[Path, list[float]]:
        """Where a codec of variable rate is kept between its points, and its lmbdas."""
        sweep = registry.get("codec", codec).sweep(self.suite.objective)
        points = [*sweep, *self.suite.params.get(codec, ())]
        lmbdas = sorted(float(p["lmbda"]) for p in points)
        key = {**self._codec_key(OperatingPoint(codec), task), "lmbdas": lmbdas}
        return self.models / f"sweep-{digest(key)}.safetensors", lmbdas

    def _codec_key(self, point: OperatingPoint, task: str | None) -> dict[str, Any]:
        b, plugin = self.suite.budget, registry.get("codec", point.codec)
        key: dict[str, Any] = {
            "version": VERSION,
            "features": self.train.store.folder.name,
            "codec": point.codec,
            "params": dict(point.params),
        }
        if registry.origin("codec", point.codec):
            key["code"] = registry.code_version("codec", point.codec)
        if plugin.trained:
            key |= {"seed": self.seed, "budget": (b.codec_steps, b.codec_batch, b.codec_rate)}
        if task:
            key |= {"task": self.readout_key(task), "objective": self.suite.objective}
        return key

    def _make_codec(self, plugin: Any, point: OperatingPoint, task: str | None, path: Path, advance: Any) -> None:
        specs = list(self.train.store.specs.values())
        torch.manual_seed(self.seed)
        codec = plugin.build(specs, self.stats, point.params)
        if _variable(plugin):
            shared, lmbdas = self.sweep_of(point.codec, task)
            if shared.exists():
                _load_into(codec, shared)
            else:
                self._train(codec, (lmbdas[0], lmbdas[-1]), task, shared, advance)
                write_atomically(shared, save(_state(codec)))
            codec.at(float(point.params["lmbda"]))
        elif plugin.trained:
            lmbda = float(point.params["lmbda"])
            self._train(codec, (lmbda, lmbda), task, path, advance)
        else:
            self._prepare(codec)
        codec.freeze()
        made_for = checkpoint.Source(self.encoder.name, self.encoder.weights.sha256)
        checkpoint.save(path, codec, point, tuple(specs), made_for)

    def _prepare(self, codec: Any) -> None:
        """Initial values from training features."""
        store = self.train.store
        n = min(PREPARE_SAMPLES, len(store))
        maps = store.batch(loop.draw(np.random.default_rng(self.seed), len(store), n))
        codec.prepare([maps[name] for name in store.specs])

    def _train(self, codec: Any, lmbdas: tuple[float, float], task: str | None, path: Path, advance: Any) -> None:
        self._prepare(codec)
        fit_codec(
            codec,
            lmbdas,
            self.train.store,
            self.stats,
            self.suite.budget,
            objective=self.suite.objective,
            task_loss=self._task_loss(task) if task else None,
            device=self.device,
            seed=self.seed,
            resume=path.with_suffix(".resume"),
            progress=advance,
        )

    def _task_loss(self, name: str) -> TaskLoss:
        task, model = self.readout(name)
        return frozen_loss(model, task, self.targets("train", name))


def _variable(plugin: Any) -> bool:
    return bool(getattr(plugin, "variable", False))


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def _load_into(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise FcbenchError(
            f"cached model {path} is damaged ({str(error).splitlines()[0]}): delete it and run again"
        ) from error
