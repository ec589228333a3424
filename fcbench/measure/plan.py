"""What a run will cost before it runs: points, trainings, time, disk.

Counted exactly (`count`): from the results folder and the cache, by the keys that the run itself looks things up with;
features that are not there yet are described by their shapes, not extracted. Timed (`probe`): a few steps of each
training, a few samples of each codec and task, on the first encoder, in a cache of its own that is thrown away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fcbench.core import registry
from fcbench.core.features import Encoder
from fcbench.core.kinds import CEILING, CODED, ENDS
from fcbench.core.registry import build_encoder
from fcbench.core.samples import Dataset
from fcbench.core.tasks import ProbabilisticHead, ScaledHead
from fcbench.features import extract
from fcbench.features.extract import BadImage
from fcbench.features.store import Entry, FeatureStore
from fcbench.measure.bench import Bench
from fcbench.measure.derived import null_bench
from fcbench.measure.forecast import Rates, Stopwatch, Variant, probe, variant
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import key
from fcbench.measure.study import open_data
from fcbench.measure.suite import Suite
from fcbench.results import row, table

__all__ = ["Counts", "Estimate", "Rates", "count", "estimate", "probe"]

ENDS_NAME = "uncoded and mean"


# --------------------------------------------------------------------------------------------- counts
@dataclass(slots=True)
class Family:
    """All points of one codec, or both ends of the curves.

    Attributes:
        n_points: one an encoder, seed, operating point and task.
        n_found: of these, found done in the results folder.
        coded: operating points to be coded; each is coded once for all its tasks.
        trained: codecs to be trained. One of variable rate trains once for its whole sweep.
        made: checkpoints to be made, trained or tables alone.
        read: points to be read, by task.
    """

    name: str
    n_points: int = 0
    n_found: int = 0
    coded: Counter[Variant] = field(default_factory=Counter)
    trained: Counter[Variant] = field(default_factory=Counter)
    made: Counter[Variant] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Counts:
    """What a run will do.

    Attributes:
        n_test: samples of the test set.
        readouts, nulls: necks and heads to be trained, by task; on features, and on a constant.
        images: to be encoded, by encoder.
        feature_bytes: of features that are not in the cache.
    """

    n_test: int
    families: dict[str, Family] = field(default_factory=dict)
    readouts: Counter[str] = field(default_factory=Counter)
    nulls: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    feature_bytes: int = 0

    @property
    def n_points(self) -> int:
        """Points in all."""
        return sum(f.n_points for f in self.families.values())

    @property
    def n_found(self) -> int:
        """Points found done."""
        return sum(f.n_found for f in self.families.values())

    @property
    def n_readouts(self) -> int:
        """Readouts to be trained, null models among them."""
        return self.readouts.total() + self.nulls.total()

    @property
    def n_codecs(self) -> int:
        """Codecs to be trained."""
        return sum(f.trained.total() for f in self.families.values())

    @property
    def line(self) -> str:
        """All of it in a line."""
        return (
            f"{self.n_points} points, {self.n_found} found done; "
            f"to train: readouts {self.n_readouts}, codecs {self.n_codecs}"
        )

    def left(self, suite: Suite) -> Suite | None:
        """The suite with those tasks and codecs alone that have points left; None where none has."""
        tasks = {t for f in self.families.values() for t in f.read}
        if not tasks:
            return None
        return replace(
            suite,
            codecs=tuple(c for c in suite.codecs if self.families[c].read),
            tasks=tuple(t for t in suite.tasks if t in tasks),
        )


def count(
    suite: Suite, out: Path, cache_dir: Path, device: torch.device, data: Mapping[str, Dataset] | None = None
) -> Counts:
    """What `fcbench.measure.run.measure` would do with the same arguments. Extracts, trains and codes nothing.

    Null models that encoders share are counted once. Where the features of no encoder are in the cache yet, they
    count as to be trained.

    Args:
        data: both splits, where they are open already: large annotations take their time.

    Raises:
        FcbenchError: bad input, as the run would find it.
    """
    data = data or open_data(suite, cache_dir)
    tally = _Tally(Counts(len(data["test"])), _done(out))
    for name in suite.encoders:
        encoder = build_encoder(name, suite.weights, device)
        for seed in suite.seeds:
            tally.add(Foreseen(suite, data, encoder, seed, cache_dir, device))
    return tally.finished()


def _done(out: Path) -> set[str]:
    """Keys of the points of a results folder that need not be measured again."""
    rows = table.load_points(out)
    failed = {r.point for r in rows if r.status != row.OK}
    return {r.point for r in rows} - failed


class Foreseen(Bench):
    """A bench that extracts nothing: of features that are not in the cache it knows names and shapes alone.

    Attributes:
        missing: feature sets that are not in the cache, with the encoder of each, by the name of their folder.
    """

    def __init__(
        self,
        suite: Suite,
        data: Mapping[str, Dataset],
        encoder: Encoder,
        seed: int,
        cache_dir: Path,
        device: torch.device,
    ) -> None:
        super().__init__(suite, data, encoder, seed, cache_dir, device, Stopwatch())
        self.missing: dict[str, tuple[str, FeatureStore]] = {}

    def _extract(self, data: Dataset, encoder: Encoder, splits: Sequence[str], what: str) -> FeatureStore:
        found, store = foreseen(data, encoder, splits, self.cache_dir, self.suite.on_bad_image)
        if not found:
            self.missing[store.folder.name] = encoder.name, store
        return store


def foreseen(
    data: Dataset, encoder: Encoder, splits: Sequence[str], cache_dir: Path, on_bad_image: BadImage = "stop"
) -> tuple[bool, FeatureStore]:
    """Whether a feature set is in the cache; the set, else one without values under the name that it will have.

    Raises:
        UnreadableSample: it cannot be described, for no image can be read.
    """
    home, name, key = extract.described(data, encoder, splits, cache_dir)
    found = extract.usable(home / name, on_bad_image)
    if found is not None:
        return True, found
    if key["image_px"] is None:
        data[0]  # raises
    height, width = key["image_px"]
    specs = {n: s for n, s in encoder.specs.items() if n in splits}
    shapes = {n: (-(-height // s.stride_px), -(-width // s.stride_px)) for n, s in specs.items()}
    entries = [Entry("", i, (height, width)) for i in range(len(data))]
    return False, FeatureStore(home / name, entries, (), (height, width), specs, shapes, len(entries))


# ---------------------------------------------------------------------------------------------- tally
class _Tally:
    """Counts encoder by encoder and seed by seed; what they share is counted once."""

    def __init__(self, counts: Counts, done: set[str]) -> None:
        self.counts, self._done = counts, done
        self._missing: dict[str, tuple[str, FeatureStore]] = {}
        self._trained: set[Path] = set()
        self._nulls: dict[tuple[Any, ...], bool] = {}  # whether it is in the cache

    def add(self, bench: Foreseen) -> None:
        """Count one encoder and seed."""
        for job in jobs(bench.suite):
            name = ENDS_NAME if job.kind in ENDS else job.point.codec
            family = self.counts.families.setdefault(name, Family(name))
            pending = [t for t in job.tasks if key(bench, job, t) not in self._done]
            family.n_points += len(job.tasks)
            family.n_found += len(job.tasks) - len(pending)
            if pending:
                family.coded[variant(job)] += 1
                family.read.update(pending)
                self._add_models(bench, job, pending, family)
        self._missing |= bench.missing

    def finished(self) -> Counts:
        """The counts."""
        for task, *_ in (k for k, found in self._nulls.items() if not found):
            self.counts.nulls[task] += 1
        for encoder, store in self._missing.values():
            self.counts.images[encoder] += len(store)
            self.counts.feature_bytes += 4 * store.n_points
        return self.counts

    def _add_models(self, bench: Foreseen, job: Job, tasks: Sequence[str], family: Family) -> None:
        bench.test  # noqa: B018 - features are extracted for whatever is pending
        for task in tasks:
            if (decoder := bench.task_model(task)) is not None:
                bench._own_features(decoder)
            if self._is_new(bench.readout_path(task)):
                self.counts.readouts[task] += 1
            if job.kind == CEILING and bench.suite.null_model:
                self._add_null(bench, task)
        if job.kind != CODED:
            return
        plugin = registry.get("codec", job.point.codec)
        if self._is_new(bench.codec_path(job.point, job.fitted_to)):
            family.made[variant(job)] += 1
            if getattr(plugin, "variable", False):
                sweep, _ = bench.sweep_of(job.point.codec, job.fitted_to)
                family.trained[variant(job)] += self._is_new(sweep)
            elif plugin.trained:
                family.trained[variant(job)] += 1

    def _is_new(self, path: Path) -> bool:
        """Whether a model is to be trained that was not counted yet."""
        if path in self._trained or path.exists():
            return False
        self._trained.add(path)
        return True

    def _add_null(self, bench: Foreseen, task: str) -> None:
        store, decoder = bench.train.store, bench.task_model(task)
        grid = next(iter(store.shapes.values()))
        if decoder is None:
            head = bench._task(task).head(bench.suite.budget.width, grid, store.image_px)
        else:
            head = decoder.head()
        if isinstance(head, ProbabilisticHead | ScaledHead):
            same = task, bench.seed, grid, store.image_px
            found = null_bench(bench).readout_path(task).exists()
            self._nulls[same] = self._nulls.get(same, False) or found


# ----------------------------------------------------------------------------------------------- cost
@dataclass(frozen=True, slots=True)
class Estimate:
    """Time and disk of a run.

    Attributes:
        features_s: extraction.
        readouts_s, nulls_s: training; null models are also read once.
        families_s: each codec's training and points.
        feature_bytes, model_bytes, result_bytes: on disk, at the end.
    """

    features_s: float
    readouts_s: float
    nulls_s: float
    families_s: Mapping[str, float]
    feature_bytes: int
    model_bytes: int
    result_bytes: int

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum((self.features_s, self.readouts_s, self.nulls_s, *self.families_s.values()))


def estimate(counts: Counts, rates: Rates) -> Estimate:
    """What counted things take at the rates of a probe. Encoders that were not timed count as the one that was."""
    typical_s = next(iter(rates.image_s.values()), 0.0)
    null_s = {t: rates.readout_s[t] + counts.n_test * rates.read_s[t] for t in counts.nulls}
    n_rows, models = Counter[str](), counts.readouts + counts.nulls
    model_bytes = sum(n * rates.readout_bytes[t] for t, n in models.items())
    for f in counts.families.values():
        n_rows += f.read
        model_bytes += sum(n * rates.train_bytes.get(v, 0) for v, n in f.trained.items())
        model_bytes += sum(n * rates.make_bytes.get(v, 0) for v, n in f.made.items())
    return Estimate(
        sum(n * rates.image_s.get(e, typical_s) for e, n in counts.images.items()),
        sum(n * rates.readout_s[t] for t, n in counts.readouts.items()),
        sum(n * null_s[t] for t, n in counts.nulls.items()),
        {n: _family_s(f, rates, counts.n_test) for n, f in counts.families.items()},
        counts.feature_bytes,
        model_bytes,
        sum(n * rates.row_bytes[t] for t, n in n_rows.items()),
    )


def _family_s(family: Family, rates: Rates, n_test: int) -> float:
    took_s = sum(n * rates.train_s.get(v, 0.0) for v, n in family.trained.items())
    took_s += sum(n * rates.make_s.get(v, 0.0) for v, n in family.made.items())
    took_s += n_test * sum(n * rates.code_s.get(v, 0.0) for v, n in family.coded.items())
    for task, n in family.read.items():
        took_s += n * (n_test * rates.read_s[task] + rates.row_s[task])
    return took_s
