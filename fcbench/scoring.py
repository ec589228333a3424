"""Log-likelihoods of held-out targets under readouts: what `fcbench.information` is computed from.

A head that has ``log_likelihood(x, batch)`` states a probability of each sample's target (which one: see its task).
Where that takes a ``scale`` too (depth's density), the scale is fitted on training samples, for the readout and for
the null model alike: a scale that fits neither would be counted as information.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench import _likelihoods, rows
from fcbench.bench import PREPARE_SAMPLES, Bench, digest
from fcbench.codecs import _checkpoint
from fcbench.coding import EVAL_BATCH, code
from fcbench.derived import null_bench
from fcbench.jobs import CEILING, CODED, FLOOR, Job, jobs
from fcbench.opened import open_data
from fcbench.pipeline import build_encoder
from fcbench.progress import Report
from fcbench.results import OK, ResultsFolder
from fcbench.suite import Suite
from fcbench.types import Task

SCALES = (1e-3, 10.0)
"""Where a density's scale is looked for, in units of the target's deviation."""
SCORED = (CEILING, FLOOR, CODED)
"""Kinds of points that get likelihoods."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A readout and the density that its head states."""

    task: Task
    model: nn.Module
    head: Any  # a Head with log_likelihood
    scale: float | None  # of the density, where it has one

    def __call__(self, x: Any, batch: Any) -> np.ndarray:
        """Log-likelihood of each sample's target [B] nats, for what the head reads."""
        arguments = (x, batch) if self.scale is None else (x, batch, self.scale)
        with torch.no_grad():
            found: Tensor = self.head.log_likelihood(*arguments)
        return found.double().cpu().numpy()


def scorer(bench: Bench, name: str) -> Scorer | None:
    """The scorer of a task's readout; None where its head states no likelihood."""
    task, model = bench.readout(name)
    stated = getattr(model.head, "log_likelihood", None)
    if stated is None:
        return None
    scale = None
    if "scale" in inspect.signature(stated).parameters:
        scale = _kept_scale(bench, name, Scorer(task, model, model.head, None))
    return Scorer(task, model, model.head, scale)


def likelihoods(
    bench: Bench, scorers: Mapping[str, Scorer], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, np.ndarray]:
    """Log-likelihoods [N] nats of the test targets by task, for decoded maps in the order of the store."""
    found, at = {t: list[np.ndarray]() for t in scorers}, 0
    for maps in batches:
        places = range(at, at + len(next(iter(maps.values()))))
        at = places.stop
        for name, score in scorers.items():
            batch = score.task.collate(bench.targets("test", name)(places))
            with torch.no_grad():
                x = score.model(maps)
            found[name].append(score(x, batch))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def uncoded(bench: Bench, name: str) -> np.ndarray | None:
    """Log-likelihoods [N] nats of the test targets on uncoded features; None where the head states none."""
    score = scorer(bench, name)
    if score is None:
        return None
    return likelihoods(bench, {name: score}, _batches(bench))[name]


def null(bench: Bench, name: str) -> np.ndarray | None:
    """Those of the null model: the same neck and head trained on a constant."""
    return uncoded(null_bench(bench), name)


def _batches(bench: Bench) -> Iterator[dict[str, Tensor]]:
    store = bench.test.store
    for i in range(0, len(store), EVAL_BATCH):
        yield store.batch(range(i, min(i + EVAL_BATCH, len(store))))


# ---------------------------------------------------------------------------------------------- scale
def _kept_scale(bench: Bench, name: str, score: Scorer) -> float:
    """The scale of a readout's density, fitted once and kept beside the readout."""
    path = bench.models / f"scale-{digest(bench.readout_key(name))}.json"
    if not path.exists():
        scale = fitted_scale(_training_residuals(bench, name, score))
        _checkpoint.write_atomically(path, json.dumps(scale).encode())
    return float(json.loads(path.read_text(encoding="utf-8")))


def _training_residuals(bench: Bench, name: str, score: Scorer) -> Any:
    """Sum of log-likelihoods over training samples as a function of the scale."""
    store, targets = bench.train.store, bench.targets("train", name)
    n, parts = min(len(store), PREPARE_SAMPLES), []
    with torch.no_grad():
        for i in range(0, n, EVAL_BATCH):
            places = range(i, min(i + EVAL_BATCH, n))
            x = score.model(store.batch(places))
            parts.append((x, score.task.collate(targets(places))))

        def total(scale: float) -> float:
            with torch.no_grad():
                sums = [
                    float(score.head.log_likelihood(x, batch, scale).double().sum())
                    for x, batch in parts
                ]
            return sum(sums)

    return total


def fitted_scale(total: Any) -> float:
    """The scale in `SCALES` at which a log-likelihood (a function of the scale) is largest.

    >>> deviations = np.array([0.1, 0.3, 0.2])  # of a Laplace density: the scale is their mean
    >>> round(fitted_scale(lambda s: float(np.sum(-deviations / s - np.log(2 * s)))), 3)
    0.2
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_scale: -total(float(np.exp(log_scale))),
        bounds=np.log(SCALES),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(found.x))


# --------------------------------------------------------------------------------- a finished folder
def annotate(
    suite: Suite, out: Path, cache_dir: Path, device: torch.device
) -> tuple[int, tuple[str, ...]]:
    """Write the likelihoods that a finished run's points lack: uncoded, coded and without any bits.

    Coded points are coded again (the codecs are found in the cache). The ceiling gets those of the null model too.

    Returns:
        Points written, and the tasks whose heads state no likelihood.
    """
    n, silent = 0, set[str]()
    with ResultsFolder(out) as folder, Report(0) as report:
        measured = {p.point for p in folder.points if p.status == OK}
        data = open_data(suite, cache_dir)
        for name in suite.encoders:
            encoder = build_encoder(name, suite.weights, device)
            for seed in suite.seeds:
                bench = Bench(suite, data, encoder, seed, cache_dir, device, report)
                for job in jobs(suite):
                    keys = {t: rows.key(bench, job, t) for t in job.tasks}
                    lacking = [
                        t
                        for t, point in keys.items()
                        if point in measured and not _likelihoods.has(out, point)
                    ]
                    if job.kind not in SCORED or not lacking:
                        continue
                    scorers = {t: scorer(bench, t) for t in lacking}
                    silent |= {t for t, s in scorers.items() if s is None}
                    known = {t: s for t, s in scorers.items() if s is not None}
                    if known:
                        n += _annotate_job(bench, job, known, keys, out)
    return n, tuple(sorted(silent))


def _annotate_job(
    bench: Bench,
    job: Job,
    scorers: Mapping[str, Scorer],
    keys: Mapping[str, str],
    out: Path,
) -> int:
    with tempfile.TemporaryDirectory(prefix=".streams-", dir=out) as temporary:
        coding = code(bench, job, Path(temporary) / "again.fcb")
        found = likelihoods(bench, scorers, coding.decoded)
    for name, given in found.items():
        base = null(bench, name) if job.kind == CEILING else None
        _likelihoods.add(out, keys[name], given, base)
    return len(found)
