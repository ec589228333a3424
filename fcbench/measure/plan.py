"""Cost of a run before it starts: points, trainings, time, disk.

Counted exactly (`count`): from the results folder and the cache, by the run's own keys; features that are not there yet
are described by their shapes, not extracted. Timed (`probe`): a few steps of each training, a few samples of each codec
and task, on the first encoder, in a temporary cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fcbench.core.codecs import ENDS
from fcbench.measure.forecast import Rates, Variant, variant
from fcbench.measure.graph import Graph, Makes, Node, build
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.results import table
from fcbench.results.row import OK
from fcbench.training.codec import CONTINUED_SHARE

ENDS_NAME = "uncoded and mean"


# --------------------------------------------------------------------------------------------- counts
@dataclass(slots=True)
class Family:
    """All points of one codec, or both ends of the curves.

    Attributes:
        n_points: one per encoder, seed, operating point and task.
        n_found: those already in the results folder.
        coded: operating points to be coded; each is coded once for all its tasks.
        trained: codecs to be trained. One of variable rate trains once for its whole sweep.
        continued: those among them that start from a neighbour's weights.
        made: checkpoints to be made, trained or with tables only.
        read: points to be evaluated, by task.
    """

    name: str
    n_points: int = 0
    n_found: int = 0
    coded: Counter[Variant] = field(default_factory=Counter)
    trained: Counter[Variant] = field(default_factory=Counter)
    continued: Counter[Variant] = field(default_factory=Counter)
    made: Counter[Variant] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Counts:
    """Amount of work in a run.

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
        """Total number of points."""
        return sum(f.n_points for f in self.families.values())

    @property
    def n_found(self) -> int:
        """Points already in the results folder."""
        return sum(f.n_found for f in self.families.values())

    @property
    def n_readouts(self) -> int:
        """Readouts to be trained, including null models."""
        return self.readouts.total() + self.nulls.total()

    @property
    def n_codecs(self) -> int:
        """Codecs to be trained."""
        return sum(f.trained.total() for f in self.families.values())

    @property
    def line(self) -> str:
        """All counts in one line."""
        return (
            f"{self.n_points} points, {self.n_found} already there; "
            f"to train: readouts {self.n_readouts}, codecs {self.n_codecs}"
        )

    def left(self, suite: Suite) -> Suite | None:
        """The suite with only those tasks and codecs that have points left; None if there are none.

        If uncoded points alone are left, it keeps its codecs: no suite is without any.
        """
        tasks = {t for f in self.families.values() for t in f.read}
        if not tasks:
            return None
        return replace(
            suite,
            codecs=tuple(c for c in suite.codecs if self.families[c].read) or suite.codecs,
            tasks=tuple(t for t in suite.tasks if t in tasks),
        )


def count(study: Study, out: Path) -> Counts:
    """Count what `fcbench.measure.run.measure` would do with the same arguments. Extracts, trains and codes nothing.

    Null models that encoders share are counted once. If no encoder's features are in the cache yet, null models count
    as to be trained.

    Raises:
        FcbenchError: bad input, as in the run.
    """
    counts = counts_of(build(study, done(out).__contains__), len(study.data["test"]))
    return counts if study.suite.store_features else replace(counts, feature_bytes=0)


def done(out: Path) -> set[str]:
    """Keys of the points of a results folder that need not be measured again."""
    rows = table.load_points(out)
    failed = {r.point for r in rows if r.status != OK}
    return {r.point for r in rows} - failed


def counts_of(graph: Graph, n_test: int) -> Counts:
    """Totals of the nodes of a graph."""
    counts = Counts(n_test)
    for codec, n in graph.n_points.items():
        family = counts.families.setdefault(_family(codec), Family(_family(codec)))
        family.n_points += n
        family.n_found += graph.n_found[codec]
    for name, features in graph.sets.values():
        counts.images[name] += len(features)
        counts.feature_bytes += features.n_bytes
    for node in graph.nodes.values():
        if node.makes == Makes.READOUT:
            counts.readouts[node.task] += 1
        elif node.makes == Makes.NULL_MODEL:
            counts.nulls[node.task] += 1
        elif node.job is not None:
            _add(counts.families[_family(node.job.point.codec)], node, variant(node.job))
    return counts


def _family(codec: str) -> str:
    return ENDS_NAME if codec in (end.codec for end in ENDS.values()) else codec


def _add(family: Family, node: Node, which: Variant) -> None:
    """Count a node of a codec or a point."""
    if node.makes == Makes.POINT:
        family.coded[which] += 1
        family.read.update(node.tasks)
    if node.makes in (Makes.CODEC, Makes.SWEEP):
        family.trained[which] += 1
        family.continued[which] += node.continued
    if node.makes in (Makes.CODEC, Makes.TABLES):
        family.made[which] += 1


# ----------------------------------------------------------------------------------------------- cost
@dataclass(frozen=True, slots=True)
class Estimate:
    """Time and disk of a run.

    Attributes:
        features_s: extraction.
        readouts_s, nulls_s: training; null models are also read once.
        families_s: each codec's training and points.
        feature_bytes, model_bytes, result_bytes: on disk after the run.
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
        """Total time."""
        return sum((self.features_s, self.readouts_s, self.nulls_s, *self.families_s.values()))


def estimate(counts: Counts, rates: Rates) -> Estimate:
    """Time and disk of counted work at the rates of a probe. Encoders that were not timed count as the one that was."""
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
    saved = 1 - CONTINUED_SHARE
    took_s = sum((n - saved * family.continued[v]) * rates.train_s.get(v, 0.0) for v, n in family.trained.items())
    took_s += sum(n * rates.make_s.get(v, 0.0) for v, n in family.made.items())
    took_s += n_test * sum(n * rates.code_s.get(v, 0.0) for v, n in family.coded.items())
    for task, n in family.read.items():
        took_s += n * (n_test * rates.read_s[task] + rates.row_s[task])
    return took_s
