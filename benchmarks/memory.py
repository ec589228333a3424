"""The memory benchmark: whether data that does not fit in memory is measured in constant memory and linear time.

    python -m benchmarks.memory                    500, 2000 and 8000 samples
    python -m benchmarks.memory --quick            100 and 400: to check that everything works
    python -m benchmarks.memory --no-store         the same with the encoder in every step, and no stored features

Each stage of a run (one encoder, one task, one codec) runs in its own process, on equally many training and test
samples; the stages before it come from the cache. What fcbench keeps in memory of a small set is limited to
`LIMIT_BYTES`, so that the smallest set exceeds it as terabytes exceed the real limit. Images and targets are
made from their index. Trainings have a fixed number of steps: their time should not grow.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from fcbench.core import processes
from fcbench.core.cache import Cache
from fcbench.core.codecs import Kind
from fcbench.core.progress import Report
from fcbench.core.samples import Sample
from fcbench.features import feature_set, statistics
from fcbench.measure.point import send_and_read
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import make_rows
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial
from fcbench.testing.fake_data import FakeDataset
from fcbench.training import targets
from fcbench.training.options import Budget

LIMIT_BYTES = 4 << 20
FLAT = 1.1
"""Largest peak allowed, relative to that with the fewest samples."""
TASK, STEPS, SIZE_PX = "depth", 100, (96, 96)


class Noise(FakeDataset):
    """Random images, the same for the same index."""

    tasks = (TASK,)

    def __init__(self, n: int, split: str) -> None:
        super().__init__(n, SIZE_PX, split)
        self.image_size_px = SIZE_PX

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((index, self.split == "train"))
        image = rng.integers(0, 256, (3, *self.size_px), dtype=np.uint8)
        return Sample(f"{self.split}-{index}", torch.from_numpy(image), self.size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        return super().targets(index % 8)


# --------------------------------------------------------------------------------------------- stages
def _trial(n: int, folder: Path, how: Mapping[str, Any]) -> Trial:
    suite = Suite(
        "memory",
        ("hiera_nano",),
        ("hyperprior",),
        (TASK,),
        params={"hyperprior": ({"lmbda": 1.0},)},
        budget=Budget(task_steps=STEPS, codec_steps=STEPS, task_batch=16, codec_batch=16),
        **how,
    )
    study = Study(suite, {s: Noise(n, s) for s in ("train", "test")}, Cache(folder).make(), torch.device("cpu"))
    return Trial(study, study.source(study.encoder(suite.encoders[0]), Report(0)), 0, Report(0))


def _job(trial: Trial) -> Job:
    return next(job for job in jobs(trial.study.suite) if job.kind == Kind.CODED)


def _code(trial: Trial, folder: Path) -> None:
    job, readers = _job(trial), {TASK: trial.reader(TASK)}
    done = send_and_read(trial, job, trial.source, readers, folder / "stream.fcb")
    assert done is not None
    make_rows(trial, job, readers[TASK], trial.complexity.of_readout(readers[TASK]), done, TASK)


STAGES: dict[str, Callable[[Trial, Path], object]] = {
    "features, statistics": lambda trial, folder: None,
    "opening": lambda trial, folder: None,
    "readout": lambda trial, folder: trial.reader(TASK),
    "codec": lambda trial, folder: trial.codec(_job(trial)),
    "coding, reading": _code,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of a stage, and peak memory of its process."""

    took_s: float
    peak_mib: float


def _measure(stage: str, n: int, folder: Path, how: Mapping[str, Any]) -> Cost:
    torch.set_num_threads(1)
    feature_set.RAM_LIMIT_BYTES = targets.TARGETS_LIMIT_BYTES = statistics.CHUNK_BYTES = LIMIT_BYTES
    processes.peak_bytes = lambda call: None  # it resets the peak that is read below
    began = time.perf_counter()
    STAGES[stage](_trial(n, folder, how), folder)
    took_s = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def costs(counts: Sequence[int], **how: Any) -> dict[str, list[Cost]]:
    """Cost of each stage for these numbers of samples.

    Args:
        how: fields of the suite: how features are stored.
    """
    found: dict[str, list[Cost]] = {stage: [] for stage in STAGES}
    for n in counts:
        with tempfile.TemporaryDirectory(prefix="fcbench-memory-") as folder:
            for stage in STAGES:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[stage].append(pool.submit(_measure, stage, n, Path(folder), how).result())
    return found


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Few samples.")
@click.option("--features-dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--no-store", is_flag=True, help="Store no features.")
def main(quick: bool, features_dtype: str, no_store: bool) -> None:
    """Print a table; exit with 1 if memory is not constant."""
    counts = (100, 400) if quick else (500, 2000, 8000)
    found, flat = costs(counts, features_dtype=features_dtype, store_features=not no_store), True
    click.echo(f"{'stage':22}" + "".join(f"{f'N={n}':>20}" for n in counts) + f"{'peak':>8}")
    for stage, each in found.items():
        growth = max(c.peak_mib for c in each) / each[0].peak_mib
        flat &= growth <= FLAT
        cells = "".join(f"{f'{c.took_s:.1f} s {c.peak_mib:.0f} MiB':>20}" for c in each)
        click.echo(f"{stage:22}{cells}{growth:>7.2f}x")
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
