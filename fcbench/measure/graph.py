"""The work of a run, as plain data: a graph of nodes, each of which makes one thing.

    features (encoder, split) -> readouts (task, seed), null models, codecs (point, seed) -> points -> rows

What a node makes is stored in the cache under the node's key; a point's rows go to the results folder. The graph holds
only missing work. Building it extracts, trains and codes nothing: features that are not in the cache yet are described
by their shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from fcbench.core.cache import Cache
from fcbench.core.codecs import Kind
from fcbench.core.errors import UnreadableSample
from fcbench.core.features import Encoder, FeaturesDtype
from fcbench.core.progress import Report
from fcbench.core.samples import Dataset
from fcbench.core.tasks import ProbabilisticHead, ScaledHead
from fcbench.features import extract, store
from fcbench.features.extract import BadImage
from fcbench.features.feature_set import RAM_LIMIT_BYTES, FeatureSet, SampleInfo
from fcbench.features.source import Readable, Source, Split, split_points_of
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import key_of
from fcbench.measure.study import Study
from fcbench.measure.trial import Trial, null_source
from fcbench.training.codec import CodecRecipe
from fcbench.training.readout import ReadoutRecipe, own_samples

PROCESS_BYTES = 1 << 30
"""Memory of a working process: Python, PyTorch, a model."""


class Makes(str, Enum):
    """Product of a node."""

    FEATURES = "features"
    READOUT = "readout"
    NULL_MODEL = "null model"
    SWEEP = "codec of variable rate"
    CODEC = "codec"
    TABLES = "tables"  # of a codec that needs no separate training
    POINT = "point"


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work.

    Attributes:
        key: of its product: a name in the cache, or a row's point.
        label: for people.
        encoder: name in the suite.
        split: of features.
        task: of a readout or a null model.
        job: of a codec or a point.
        tasks: missing tasks of a point.
        continued: whether a codec's training starts from another one's weights.
        needs: keys of the nodes before it -> the tasks of a point that fail with them.
        path: its product in the cache; None for a point.
        memory_bytes: of a process for it: its own, and the features that stay in memory.
    """

    key: str
    makes: Makes
    label: str
    encoder: str
    seed: int = 0
    split: str = ""
    task: str = ""
    job: Job | None = None
    tasks: tuple[str, ...] = ()
    continued: bool = False
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    path: Path | None = None
    memory_bytes: int = PROCESS_BYTES

    @property
    def of_job(self) -> Job:
        """The job of a node for a codec or a point."""
        assert self.job is not None
        return self.job


@dataclass(slots=True)
class Graph:
    """The nodes of a run by key, in an order in which one process can execute them.

    Attributes:
        n_points: of the suite, by codec.
        n_found: number of these in the results folder.
        found: their keys.
        sources: features by encoder of the suite; without values if they must be extracted.
        sets: known features that are not in the cache: encoder and set, by key of their node.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    n_points: Counter[str] = field(default_factory=Counter)
    n_found: Counter[str] = field(default_factory=Counter)
    found: set[str] = field(default_factory=set)
    sources: dict[str, Source] = field(default_factory=dict)
    sets: dict[str, tuple[str, FeatureSet]] = field(default_factory=dict)


def build(study: Study, done: Callable[[str], bool]) -> Graph:
    """The graph of missing work.

    Args:
        done: whether the point of a key is already measured.

    Raises:
        FcbenchError: bad input, as in the run.
    """
    graph = Graph()
    points = jobs(study.suite)
    for name in study.suite.encoders:
        encoder, builder = study.encoder(name), None
        for seed in study.suite.seeds:
            pending = []
            for job in points:
                keys = {t: key_of(study, encoder, seed, job, t) for t in job.tasks}
                missing = {t: key for t, key in keys.items() if not done(key)}
                graph.n_points[job.point.codec] += len(keys)
                graph.n_found[job.point.codec] += len(keys) - len(missing)
                graph.found.update(key for task, key in keys.items() if task not in missing)
                if missing:
                    pending.append((job, missing))
            if pending:
                builder = builder or _Builder(graph, study, name, encoder)
                builder.add(seed, pending)
    return graph


class _Builder:
    """Adds the nodes of one encoder to a graph."""

    def __init__(self, graph: Graph, study: Study, name: str, encoder: Encoder) -> None:
        self.graph, self.study, self.name, self.encoder = graph, study, name, encoder
        self._cache = study.cache
        self._source = graph.sources[name] = self._features()
        sets = self._source.train.features, self._source.test.features
        self._sets = tuple(map(_set_key, sets))
        self._memory_bytes = PROCESS_BYTES + sum(min(s.n_bytes, RAM_LIMIT_BYTES) for s in sets)

    def add(self, seed: int, pending: Sequence[tuple[Job, Mapping[str, str]]]) -> None:
        """Add points of a seed, each after the nodes that it needs.

        Args:
            pending: jobs, each with the keys of its rows by task.
        """
        trial = Trial(self.study, self._source, seed, Report(0))
        for job, keys in pending:
            needs = dict.fromkeys(self._sets, tuple(keys))
            for task in keys:
                recipe = trial.recipe(task)
                before = self._readout(recipe)
                if job.kind == Kind.CEILING and self.study.suite.null_model:
                    before += self._null_model(recipe)
                needs |= dict.fromkeys(before, (task,))
            if job.kind == Kind.CODED:
                needs |= dict.fromkeys(self._codec(trial.codec_recipe(job.point, job.fitted_to), job), tuple(keys))
            label = f"{self.encoder.name}: {job.point.label}{self._of(seed)}"
            node = Node(next(iter(keys.values())), Makes.POINT, label, self.name, seed, needs=needs)
            self.graph.nodes[node.key] = replace(node, job=job, tasks=tuple(keys), memory_bytes=self._memory_bytes)

    # ------------------------------------------------------------------------------------------- features
    def _features(self) -> Source:
        """The source of the run, without values if it must be extracted."""
        suite = self.study.suite
        points = split_points_of(self.encoder, suite.split_point)
        splits = {}
        for which, data in self.study.data.items():
            how = suite.on_bad_image, suite.tasks, suite.features_dtype
            is_cached, features = expected_set(data, self.encoder, points, self._cache, *how)
            label = f"{self.encoder.name}: features of {which}"
            path = self._cache.features / features.key
            node = Node(_set_key(features), Makes.FEATURES, label, self.name, split=which, path=path)
            memory_bytes = PROCESS_BYTES + min(features.n_bytes, RAM_LIMIT_BYTES)
            self.graph.nodes.setdefault(node.key, replace(node, memory_bytes=memory_bytes))
            if not is_cached:
                self.graph.sets.setdefault(node.key, (self.encoder.name, features))
            splits[which] = Split(Readable(data, features.indices), features)
        name = suite.split_point or self.encoder.default_split_point
        return Source(self.encoder, points, name, splits["train"], splits["test"], {})

    def _see_own_features(self, recipe: ReadoutRecipe) -> None:
        """Record the features of a frozen decoder's own encoder, which its training extracts if they are missing."""
        if recipe.decoder is not None:
            is_cached, features = expected_set(
                own_samples(recipe),
                recipe.decoder.encoder,
                recipe.decoder.inputs,
                self._cache,
                dtype=recipe.source.train.features.dtype,
            )
            if not is_cached:
                self.graph.sets.setdefault(_set_key(features), (recipe.decoder.encoder.name, features))

    # --------------------------------------------------------------------------------------------- models
    def _readout(self, recipe: ReadoutRecipe) -> tuple[str, ...]:
        path = recipe.path(self._cache)
        if recipe.tail is not None or self._is_made(path):
            return ()
        what = f"adapter to {recipe.decoder.name}" if recipe.decoder else "head"
        label = f"{self.encoder.name}: {recipe.neck} and {what}, {recipe.task.name}"
        self._see_own_features(recipe)
        return self._node(path, Makes.READOUT, label, recipe)

    def _null_model(self, recipe: ReadoutRecipe) -> tuple[str, ...]:
        """Null model, which encoders share; a tail has none."""
        if recipe.tail is not None:
            return ()
        features = recipe.source.train.features
        _, grid = features.finest
        if recipe.decoder is None:
            head = recipe.task.head(recipe.budget.width, grid, features.image_px)
        else:
            head = recipe.decoder.head()
        null = replace(recipe, source=null_source(recipe.source), neck_loss="task")
        path = null.path(self._cache)
        if self._is_made(path) or not isinstance(head, ProbabilisticHead | ScaledHead):
            return ()
        self._see_own_features(null)
        return self._node(path, Makes.NULL_MODEL, f"null model, {recipe.task.name}", recipe)

    def _codec(self, recipe: CodecRecipe, job: Job) -> tuple[str, ...]:
        """A codec, after the readout that it is fitted to, and the training that it starts from or is part of."""
        path, shared = recipe.path(self._cache), recipe.trained_path(self._cache)
        if self._is_made(path):
            return ()
        before = self._readout(recipe.fitted_to) if recipe.fitted_to else ()
        if recipe.start:
            before += self._codec(recipe.start, replace(job, point=recipe.start.point))
        of_task = f" for {job.fitted_to}" if job.fitted_to else ""
        if shared != path and not self._is_made(shared):
            label = f"{self.encoder.name}: {job.point.codec}{of_task}, all rates"
            before += self._node(shared, Makes.SWEEP, label, recipe, before, job)
        makes = Makes.CODEC if job.trained and shared == path else Makes.TABLES
        what = "training" if makes == Makes.CODEC else "tables"
        return self._node(path, makes, f"{self.encoder.name}: {job.point.label}{of_task}, {what}", recipe, before, job)

    # ---------------------------------------------------------------------------------------------- nodes
    def _node(
        self,
        path: Path,
        makes: Makes,
        label: str,
        recipe: ReadoutRecipe | CodecRecipe,
        before: Sequence[str] = (),
        job: Job | None = None,
    ) -> tuple[str, ...]:
        """The key of a node, which is added if the graph lacks it."""
        task = recipe.task.name if isinstance(recipe, ReadoutRecipe) else ""
        continued = isinstance(recipe, CodecRecipe) and recipe.start is not None
        needs: dict[str, tuple[str, ...]] = dict.fromkeys((*self._sets, *before), ())
        node = Node(path.stem, makes, label + self._of(recipe.seed), self.name, recipe.seed, needs=needs)
        node = replace(node, task=task, job=job, continued=continued, path=path, memory_bytes=self._memory_bytes)
        self.graph.nodes.setdefault(node.key, node)
        return (node.key,)

    def _is_made(self, path: Path) -> bool:
        return path.stem not in self.graph.nodes and path.exists()

    def _of(self, seed: int) -> str:
        return f", seed {seed}" if len(self.study.suite.seeds) > 1 else ""


def _set_key(features: FeatureSet) -> str:
    return f"features-{features.key}"


# ------------------------------------------------------------------------------------------ features foreseen
def expected_set(
    data: Dataset,
    encoder: Encoder,
    split_points: Sequence[str],
    cache: Cache,
    on_bad_image: BadImage = "stop",
    tasks: Sequence[str] = (),
    dtype: FeaturesDtype = "float32",
) -> tuple[bool, FeatureSet]:
    """Whether a feature set is in the cache; and the set, or one without values under its future name.

    Raises:
        UnreadableSample: no image can be read.
    """
    contents = extract.describe(data, encoder, split_points, dtype, on_bad_image, tasks)
    cached = extract.usable(data, encoder, split_points, contents, cache, on_bad_image)
    if cached is not None:
        return True, cached
    height, width = data.image_size_px or _first_image_px(data)
    specs = {n: s for n, s in encoder.specs.items() if n in split_points}
    grids = {n: encoder.grid(n, (height, width)) for n in specs}
    samples = tuple(SampleInfo("", i, (height, width)) for i in range(len(data)))
    return False, FeatureSet(store.key_of(contents), samples, (), (height, width), specs, grids, {}, dtype)


def _first_image_px(data: Dataset) -> tuple[int, int]:
    """(H, W) of the first readable image."""
    for i in range(len(data)):
        try:
            image = data[i].image
        except UnreadableSample:
            continue
        return int(image.shape[-2]), int(image.shape[-1])
    raise UnreadableSample(f"data set {data.name} has no readable sample")
