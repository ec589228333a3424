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

from fcbench.core.cache import Cache
from fcbench.core.errors import UnreadableSample
from fcbench.core.features import Encoder
from fcbench.core.kinds import ENDS, Kind
from fcbench.core.progress import Report
from fcbench.core.samples import Dataset
from fcbench.core.tasks import ProbabilisticHead, ScaledHead
from fcbench.features import extract, store
from fcbench.features.extract import BadImage
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.source import Readable, Source, Split, split_points_of
from fcbench.measure.forecast import Rates, Variant, probe, variant
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import key_of
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial, null_source
from fcbench.results import table
from fcbench.results.row import OK
from fcbench.training.readout import ReadoutRecipe, own_samples

__all__ = ["Counts", "Estimate", "Rates", "count", "estimate", "probe"]

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
        """Points that the results folder holds already."""
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
            f"{self.n_points} points, {self.n_found} already there; "
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


def count(study: Study, out: Path) -> Counts:
    """What `fcbench.measure.run.measure` would do with the same arguments. Extracts, trains and codes nothing.

    Null models that encoders share are counted once. Where the features of no encoder are in the cache yet, they
    count as to be trained.

    Raises:
        FcbenchError: bad input, as the run would find it.
    """
    tally = _Tally(study, Counts(len(study.data["test"])), _done(out))
    for name in study.suite.encoders:
        encoder = study.encoder(name)
        tally.add_encoder(encoder)
    return tally.counts


def _done(out: Path) -> set[str]:
    """Keys of the points of a results folder that need not be measured again."""
    rows = table.load_points(out)
    failed = {r.point for r in rows if r.status != OK}
    return {r.point for r in rows} - failed


def expected_set(
    data: Dataset, encoder: Encoder, split_points: Sequence[str], cache: Cache, on_bad_image: BadImage = "stop"
) -> tuple[bool, FeatureSet]:
    """Whether a feature set is in the cache; the set, else one without values under the name that it will have.

    Raises:
        UnreadableSample: no image can be read.
    """
    key = store.key_of(extract.describe(data, encoder, split_points))
    found = extract.usable(cache.features / key, on_bad_image)
    if found is not None:
        return True, found
    height, width = data.image_size_px or _first_image_px(data)
    specs = {n: s for n, s in encoder.specs.items() if n in split_points}
    grids = {n: (-(-height // s.stride_px), -(-width // s.stride_px)) for n, s in specs.items()}
    samples = tuple(SampleInfo("", i, (height, width)) for i in range(len(data)))
    return False, FeatureSet(key, samples, (), (height, width), specs, grids, {})


def _first_image_px(data: Dataset) -> tuple[int, int]:
    """(H, W) of the first readable image."""
    for i in range(len(data)):
        try:
            image = data[i].image
        except UnreadableSample:
            continue
        return int(image.shape[-2]), int(image.shape[-1])
    raise UnreadableSample(f"data set {data.name} has no readable sample")


# ---------------------------------------------------------------------------------------------- tally
class _Tally:
    """Counts encoder by encoder and seed by seed; what they share is counted once."""

    def __init__(self, study: Study, counts: Counts, done: set[str]) -> None:
        self.study, self.counts, self._done = study, counts, done
        self._seen: set[Path] = set()

    def add_encoder(self, encoder: Encoder) -> None:
        """Count an encoder's points, with all that they need."""
        suite = self.study.suite
        points = jobs(suite)
        names, source = split_points_of(encoder, suite.split_point), None
        for seed in suite.seeds:
            for job in points:
                name = ENDS_NAME if job.kind in ENDS else job.point.codec
                family = self.counts.families.setdefault(name, Family(name))
                pending = [t for t in job.tasks if key_of(self.study, encoder, seed, job, t) not in self._done]
                family.n_points += len(job.tasks)
                family.n_found += len(job.tasks) - len(pending)
                if pending:
                    family.coded[variant(job)] += 1
                    family.read.update(pending)
                    source = source or self._source(encoder, names)
                    self._add_models(Trial(self.study, source, seed, Report(0)), job, pending, family)

    def _source(self, encoder: Encoder, split_points: Sequence[str]) -> Source:
        """The source that the run will have, without values where it must be extracted."""
        suite = self.study.suite
        splits = {}
        for which, data in self.study.data.items():
            features = self._features(data, encoder, split_points)
            splits[which] = Split(Readable(data, features.indices), features)
        name = suite.split_point or encoder.default_split_point
        return Source(encoder, tuple(split_points), name, splits["train"], splits["test"], {})

    def _features(self, data: Dataset, encoder: Encoder, split_points: Sequence[str]) -> FeatureSet:
        found, features = expected_set(data, encoder, split_points, self.study.cache, self.study.suite.on_bad_image)
        if not found and self._is_new(self.study.cache.features / features.key):
            self.counts.images[encoder.name] += len(features)
            self.counts.feature_bytes += 4 * features.n_scalars
        return features

    def _add_models(self, trial: Trial, job: Job, tasks: Sequence[str], family: Family) -> None:
        cache = self.study.cache
        for task in tasks:
            recipe = trial.recipe(task)
            if recipe.decoder is not None:
                self._features(own_samples(recipe), recipe.decoder.encoder, recipe.decoder.inputs)
            self.counts.readouts[task] += self._is_new(recipe.path(cache))
            if job.kind == Kind.CEILING and self.study.suite.null_model:
                self._add_null(recipe)
        if job.kind != Kind.CODED:
            return
        codec = trial.codec_recipe(job.point, job.fitted_to)
        if self._is_new(codec.path(cache)):
            family.made[variant(job)] += 1
            if job.trained:
                shared = codec.trained_path(cache)
                family.trained[variant(job)] += shared == codec.path(cache) or self._is_new(shared)

    def _add_null(self, recipe: ReadoutRecipe) -> None:
        features = recipe.source.train.features
        _, grid = features.finest
        if recipe.decoder is None:
            head = recipe.task.head(recipe.budget.width, grid, features.image_px)
        else:
            head = recipe.decoder.head()
        if isinstance(head, ProbabilisticHead | ScaledHead):
            null = replace(recipe, source=null_source(recipe.source), neck_loss="task")
            self.counts.nulls[recipe.task.name] += self._is_new(null.path(self.study.cache))

    def _is_new(self, path: Path) -> bool:
        """Whether something is to be made that was not counted yet."""
        if path in self._seen or path.exists():
            return False
        self._seen.add(path)
        return True


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
