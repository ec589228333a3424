"""Distortion of extracted features, and what a command of the user's own says of them (`run --metric-command`).

A tail's ``predict`` returns the maps as they arrive. ``mse`` is in the features' own units; ``cosine`` is the mean over
samples of the cosine between all that was sent and all that arrived.

The command is run on a folder of the decoded test samples, with the files, names and layouts of the original, as its
last argument. The last line that it prints is the metric ``command``: one number for the test set, for which there is
no interval (a resample would have to be run anew), or one per test sample in the manifest's order, of which the mean is
taken.
"""

import math
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.manifest import Decoded, Manifest, Recorded
from fcbench.core.samples import Dataset, require_tasks
from fcbench.core.tasks import Collector, MetricSpec, RankingTask, TaskPlugin
from fcbench.tasks.shared.targets import ratio

Batch = Sequence[tuple[Manifest, Recorded]]
ERROR, SCALARS, COSINE, SAMPLES, NUMBER, OF_EACH = range(6)  # Columns of the statistics; the last two of a command


class FeaturesTask(RankingTask):
    """`command`: of the user; None for none."""

    name = "features"

    def __init__(self, command: str | None, lower_is_better: bool) -> None:
        self.command = command
        own = (MetricSpec("command", not lower_is_better),) if command else ()
        self.metrics = (*own, MetricSpec("mse", False), MetricSpec("cosine", True))
        self.n_statistics = 6 if command else 4

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        raise FcbenchError("extracted features have no head to be trained: use --head tail")

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Batch:
        """The manifest and the sample of each."""
        return [t[self.name] for t in targets]

    def statistics(self, prediction: Mapping[str, Tensor], batch: Batch) -> np.ndarray:
        """Squared error, scalars, cosine, 1: float64 [B, 4]; those of the command follow at the end."""
        rows = []
        for i, (manifest, sample) in enumerate(batch):
            sent = manifest.read_maps(sample)
            a = np.concatenate([m.ravel() for m in sent.values()]).astype(np.float64)
            b = np.concatenate([prediction[n][i].detach().cpu().numpy().ravel() for n in sent]).astype(np.float64)
            lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
            rows.append([((a - b) ** 2).sum(), a.size, a @ b / lengths if lengths else float(not a.any()), 1.0])
        return np.asarray(rows)

    def weighted_values(self, stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        return features_values(stats, weights)

    @contextmanager
    def collecting(self) -> Iterator[Collector | None]:
        """Collects decoded samples in a folder that is removed afterwards; None without a command."""
        if self.command is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="fcbench-decoded-") as folder:
            yield _Command(self.command, Path(folder))


class _Command:
    """Decoded samples in a folder, and the command that reads them."""

    def __init__(self, command: str, folder: Path) -> None:
        self._command, self._folder, self._n = command, folder, 0
        self._decoded: Decoded | None = None

    def add(self, prediction: Mapping[str, Tensor], batch: Batch) -> None:
        """Write the samples of a batch."""
        for i, (manifest, sample) in enumerate(batch):
            self._decoded = self._decoded or Decoded(manifest, self._folder)
            self._decoded.add(sample, {n: m[i].detach().cpu().numpy() for n, m in prediction.items()})
            self._n += 1

    def statistics(self) -> np.ndarray:
        """What the command says, and whether it says it of each sample: float64 [N, 2]."""
        assert self._decoded is not None
        self._decoded.finish()
        numbers = printed(self._command, self._folder)
        if len(numbers) not in (1, self._n):
            raise FcbenchError(
                f"--metric-command printed {len(numbers)} numbers in its last line: expected 1, or {self._n}, one per "
                "test sample"
            )
        of_each = float(len(numbers) == self._n > 1)
        return np.stack([np.broadcast_to(numbers, self._n), np.full(self._n, of_each)], 1)


def printed(command: str, folder: Path) -> np.ndarray:
    """The numbers in the last line that a command prints of a folder. Raises `FcbenchError`: it fails, or prints
    none."""
    try:
        done = subprocess.run([*shlex.split(command), str(folder)], capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:
        raise FcbenchError(f"--metric-command {command!r} cannot be run: {error}") from None
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), "it printed no error")
        raise FcbenchError(f"--metric-command {command!r} failed with exit status {done.returncode}: {last}")
    last = next(iter(done.stdout.strip().splitlines()[-1:]), "")
    try:
        numbers = [float(word) for word in last.split()]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise FcbenchError(
            f"--metric-command {command!r} must print a finite number in its last line, got {last[:80]!r}"
        )
    return np.asarray(numbers)


def features_values(stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``command`` where there is one, ``mse``, ``cosine``: [R] of statistics [N, S] and weights [R, N]. What a command
    says of the whole set has a value for each sample once alone."""
    sums, found = weights @ stats, {}
    if stats.shape[1] > NUMBER:
        whole = np.where((weights == 1).all(axis=1), stats[0, NUMBER], np.nan)
        found["command"] = ratio(sums[:, NUMBER], sums[:, SAMPLES]) if stats[0, OF_EACH] else whole
    return found | {"mse": ratio(sums[:, ERROR], sums[:, SCALARS]), "cosine": ratio(sums[:, COSINE], sums[:, SAMPLES])}


class Plugin(TaskPlugin):
    """Features of others."""

    def build(self, train: Dataset, test: Dataset) -> FeaturesTask:
        require_tasks(["features"], train, test)
        return FeaturesTask(test.meta.commands.get("features"), test.meta.lower_is_better)

    weighted_values = staticmethod(features_values)
    values = RankingTask.values


PLUGIN = Plugin()
