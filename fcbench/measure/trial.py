"""One source of features and one seed: readers, senders and the cost of stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcbench.core.cache import digest
from fcbench.core.codecs import Kind, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.core.progress import Report
from fcbench.features.source import Source, derive
from fcbench.measure.complexity import Complexity
from fcbench.measure.density import make_scorer
from fcbench.measure.evaluate import Evaluation, Reader, evaluate
from fcbench.measure.points import Job, lmbdas_of, starts_of
from fcbench.measure.study import Study
from fcbench.training.codec import CodecRecipe, make_codec, make_sweep, require_same
from fcbench.training.readout import (
    Readout,
    ReadoutRecipe,
    TailReadout,
    TaskLoss,
    imitation_loss,
    make_readout,
    task_loss,
)
from fcbench.transmit.senders import (
    CodecSender,
    ImageSender,
    LabelSender,
    Sender,
    TrainingMean,
    Uncoded,
)

CONSTANT = "constant"


class Trial:
    """Makes the parts that the points of one source and seed share, each on first use.

    Attributes:
        neck: of every readout.
        complexity: costs of the stages.
    """

    def __init__(self, study: Study, source: Source, seed: int, report: Report, neck: str | None = None) -> None:
        self.study, self.source, self.seed, self.report = study, source, seed, report
        self.neck = neck or study.suite.neck_label
        self.complexity = Complexity(source, study.cache, study.device)
        self._readouts: dict[str, Readout | TailReadout] = {}
        self._readers: dict[str, Reader] = {}
        self._null: Source | None = None

    def recipe(self, task: str) -> ReadoutRecipe:
        """The recipe of a task's readout."""
        study, source = self.study, self.source
        return ReadoutRecipe(
            source,
            study.task(task, source),
            self.neck,
            study.suite.budget,
            self.seed,
            study.task_model(task, source),
            study.suite.neck_loss,
            study.tail(task, source),
        )

    def readout(self, task: str) -> Readout | TailReadout:
        """A task's neck and head, trained on uncoded features and frozen."""
        if task not in self._readouts:
            study, recipe = self.study, self.recipe(task)
            targets = study.targets("train", task, self.source)
            self._readouts[task] = make_readout(recipe, targets, study.cache, self.report, study.device)
        return self._readouts[task]

    def trained(self, task: str) -> Readout:
        """The trained readout of a task; not for tails."""
        readout = self.readout(task)
        assert isinstance(readout, Readout)
        return readout

    def reader(self, task: str) -> Reader:
        """A task's readout, with the density of its head."""
        if task not in self._readers:
            study, recipe, model = self.study, self.recipe(task), self.readout(task)
            scorer = make_scorer(recipe, model, study.targets("train", task, self.source), study.cache)
            targets = study.targets("test", task, self.source)
            self._readers[task] = Reader(recipe.task, model, targets, scorer, recipe.record(study.cache))
        return self._readers[task]

    def codec_recipe(self, point: OperatingPoint, fitted_to: str | None) -> CodecRecipe:
        """The recipe of a codec at an operating point."""
        suite = self.study.suite
        readout = self.recipe(fitted_to) if fitted_to else None
        objective = suite.objective if fitted_to else "mse"
        if objective == "levels" and len(self.source.train.features.specs) == 1:
            raise FcbenchError(
                f"--objective levels weighs the maps of a pyramid, and {self.source.split_point} is one map: "
                "give several split points, as in --split-point stage2+stage3, or --objective mse"
            )
        return CodecRecipe(
            self.source,
            point,
            suite.budget,
            self.seed,
            objective,
            readout,
            lmbdas_of(suite, point.codec),
            bool(suite.codec_data and fitted_to),
            starts_of(suite, point),
        )

    def sender(self, job: Job) -> Sender:
        """The sender of a point's test set; a codec that the cache lacks is trained."""
        source, test = self.source, self.source.test.features
        if job.kind == Kind.CEILING:
            return Uncoded(test)
        if job.kind == Kind.FLOOR:
            return TrainingMean(test, source.stats)
        if job.kind == Kind.REMOTE:
            return ImageSender(job.point, test, source.test.dataset, source.encoder, source.split_points)
        if job.kind == Kind.LABEL:
            (name,) = job.tasks
            return LabelSender(name, test, lambda index: self.predict(name, index))
        sender = CodecSender(self.codec(job), test, self.study.coders)
        require_same(self.codec_recipe(job.point, job.fitted_to), sender.checkpoint, sender.loaded)
        return sender

    def codec(self, job: Job) -> Path:
        """Checkpoint of a point's codec."""
        study, recipe = self.study, self.codec_recipe(job.point, job.fitted_to)
        return make_codec(recipe, study.cache, self.report, study.device, self._loss(job))

    def sweep(self, job: Job) -> None:
        """Train the variable-rate codec of which a point's codec is one rate."""
        study, recipe = self.study, self.codec_recipe(job.point, job.fitted_to)
        with self.report.part(f"{self.source.encoder.name}: {job.point.codec}, training") as advance:
            make_sweep(recipe, study.cache, study.device, self._loss(job), advance)

    def _loss(self, job: Job) -> TaskLoss | None:
        """The task loss that a codec is fitted to, besides features."""
        if job.fitted_to is None:
            return None
        task, readout = self.recipe(job.fitted_to).task, self.readout(job.fitted_to)
        if self.study.suite.codec_data:
            assert isinstance(readout, TailReadout)
            return imitation_loss(readout, self.source.train.features)
        return task_loss(readout, task, self.study.targets("train", job.fitted_to, self.source))

    def predict(self, task: str, index: int) -> Any:
        """Prediction of a task's head for the uncoded features of a test sample, on the CPU."""
        reader = self.reader(task)
        head: Any = reader.model.head
        with torch.inference_mode():
            x = reader.model(self.source.test.features.batch([index]))
            return on_cpu(head.predict(x, reader.task.collate(reader.targets([index]))))

    def evaluate_uncoded(self, *tasks: str) -> Evaluation:
        """Evaluate readers on the uncoded test set."""
        return evaluate(Uncoded(self.source.test.features).receive(), self.source, {t: self.reader(t) for t in tasks})

    def null_likelihood(self, task: str) -> np.ndarray | None:
        """Log-likelihoods [N] nats of the null model; None if the head states none."""
        source, reader = self.null_reader(task)
        return (
            evaluate(Uncoded(source.test.features).receive(), source, {task: reader}).evaluations[task].log_likelihood
        )

    def null_reader(self, task: str) -> tuple[Source, Reader]:
        """The null model, the same neck and head trained on a constant, and its source.

        It is trained with the task's loss, whatever trained the necks: otherwise a null model that explains little
        would count as information.
        """
        if self._null is None:
            self._null = null_source(self.source)
        study, recipe = self.study, replace(self.recipe(task), source=self._null, neck_loss="task")
        targets = study.targets("train", task, self.source)
        model = make_readout(recipe, targets, study.cache, self.report, study.device)
        scorer = make_scorer(recipe, model, targets, study.cache)
        targets = study.targets("test", task, self.source)
        return self._null, Reader(recipe.task, model, targets, scorer, recipe.record(study.cache))


def on_cpu(prediction: Any) -> Any:
    """A prediction with its tensors on the CPU: one, several, or none, as for captions."""
    if isinstance(prediction, torch.Tensor):
        return prediction.cpu()
    return tuple(map(on_cpu, prediction)) if isinstance(prediction, tuple) else prediction


def null_source(source: Source) -> Source:
    """The same samples with a constant instead of features, to train the null model on.

    The constant is one channel of zeros. After a neck's embedding all constants are equivalent, so encoders share the
    null model of their data, grid, neck and head.
    """
    spec, grid = source.train.features.finest
    key = digest(
        {
            "version": 3,  # neck and dense head read the constant once per batch: rounding differs from version 2
            "data": source.train.dataset.name,
            "revision": [s.dataset.revision for s in (source.train, source.test)],
            "indices": [s.features.indices for s in (source.train, source.test)],
            "grid": grid,
            "image_px": source.train.features.image_px,
        }
    )
    constant = FeatureSpec(CONSTANT, 1, spec.stride_px)
    zeros = torch.zeros(1, 1, *grid)
    return derive(source, CONSTANT, f"{CONSTANT}-{key}", constant, lambda f: zeros.expand(len(f), -1, -1, -1))
