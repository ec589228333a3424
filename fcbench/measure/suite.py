"""A suite: what a run measures, as plain data. Your own suites are Python files that set ``SUITE``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fcbench.core import registry
from fcbench.core.codecs import IMAGE, LABEL, ChecksKnobs, Knobs, Objective, codec_kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.features import FeaturesDtype
from fcbench.core.python_files import read_source, run_file
from fcbench.core.registry import coder_versions
from fcbench.core.rules import ImageSize, Positive, named, obey, shown, within
from fcbench.core.samples import DatasetMeta
from fcbench.training.options import LEVELS, QUICK, Budget

TASKS = ("segmentation", "depth", "pose", "captioning")
"""The four tasks of the paper."""
BUDGETS = tuple(LEVELS)
"""Limits of training steps and the tolerance: to try out, to work with, or to quote."""
Seed = Annotated[int, within(0, 2**32 - 1)]


@named
@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that determines the points of a run.

    Attributes:
        codecs: names of codecs, ``image:NAME`` (the image coded, encoded at the far end), ``label`` (the task's output,
            coded).
        encoders: names, each ``NAME`` or ``NAME:VARIANT``, with the suffix ``@bfloat16`` to compute in bfloat16, or
            ``@compiled`` to be compiled by PyTorch; the same holds for necks.
        params: operating points by codec; a codec not named here runs its default sweep.
        codec_data: data set whose training images, labels unused, train the codecs before a tail; None for the training
            split of `dataset`. codec_data_root: where it is read from.
        n_train, n_test: maximum number of samples of each split; None for all.
        split_point: split point, group of split points, or several with plus signs; None for the encoder's default.
        weights: of every encoder: None for its own, ``random``, or a file.
        head: ``trained`` with the neck, the ``frozen`` decoder of a task model, or the ``tail``, the rest of the
            encoder's own network, before which there is no neck and nothing is trained.
        neck_loss: what trains the neck before a frozen decoder: the task's loss, the task model's own features, both.
        task_models: ``NAME[:VARIANT]`` by task, where not the data set's default.
        task_weights: of a task's model: ``random`` or a file; its own where not named.
        features_dtype: of features as they are stored, and so as all that is trained and measured sees them.
        metric_command: command of the user that reads decoded features and prints a number; only of features that
            others extracted.
        store_features: else the encoder runs whenever features are read, with the same results.
        null_model: also train each task's neck and head on a constant: what usable information is counted from.

    Raises:
        FcbenchError: an unknown field, or a field of another type, out of range, or with a value twice. A field of
            several values also accepts a list or a single value.
    """

    name: str = "default"
    encoders: tuple[str, ...] = ("hiera_nano", "sam2_nano")
    codecs: tuple[str, ...] = ("uniform", "hyperprior")
    tasks: tuple[str, ...] = TASKS
    dataset: str = "scenes"
    data_root: Path | None = None
    image_size_px: ImageSize | None = None
    codec_data: str | None = None
    codec_data_root: Path | None = None
    split_point: str | None = None
    weights: str | None = None
    neck: str = "neck_2L"
    head: Literal["trained", "frozen", "tail"] = "trained"
    neck_loss: Literal["task", "distill", "both"] = "task"
    task_models: Mapping[str, str] = field(default_factory=dict)
    task_weights: Mapping[str, str] = field(default_factory=dict)
    objective: Objective = "mse"
    params: Mapping[str, tuple[Knobs, ...]] = field(default_factory=dict)
    seeds: tuple[Seed, ...] = (0,)
    null_model: bool = True
    n_train: Positive | None = None
    n_test: Positive | None = None
    on_bad_image: Literal["stop", "skip"] = "stop"
    features_dtype: FeaturesDtype = "float32"
    store_features: bool = True
    metric_command: str | None = None
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        obey(self)

    def with_files(self) -> Suite:
        """The suite with its plug-in files loaded, under the names that they have in rows (`registry.use`)."""
        use = registry.use
        return replace(
            self,
            encoders=tuple(use("encoder", e) for e in self.encoders),
            codecs=tuple(use("codec", c) for c in self.codecs),
            params={use("codec", c): points for c, points in self.params.items()},
            tasks=tuple(use("task", t) for t in self.tasks),
            dataset=use("dataset", self.dataset),
            codec_data=use("dataset", self.codec_data) if self.codec_data else None,
            neck=use("neck", self.neck),
            task_models={use("task", t): use("taskmodel", m) for t, m in self.task_models.items()},
            task_weights={use("task", t): w for t, w in self.task_weights.items()},
        )

    def check(self) -> None:
        """Raise `FcbenchError` for an unknown name or parameter of a codec, before any work is done."""
        for kind, values in (
            ("dataset", tuple(registry.split_variant(d)[0] for d in (self.dataset, self.codec_data) if d)),
            ("encoder", tuple(map(registry.encoder_family, self.encoders))),
            ("neck", (registry.plain(self.neck),)),
            ("task", self.tasks),
        ):
            for name in values:
                if name not in registry.names(kind):
                    raise FcbenchError(unknown(kind, name, registry.names(kind)))
        self._check_codecs()
        self._check_heads()
        carried = registry.get("dataset", self.dataset).tasks
        for task in self.tasks:
            if task not in carried:
                raise FcbenchError(f"data set {self.dataset!r} carries no {task}; it has {', '.join(carried)}")

    def _check_codecs(self) -> None:
        for typed in dict.fromkeys((*self.codecs, *self.params)):
            kind, name = codec_kind(typed)
            known = registry.names(kind)
            if kind == "codec":
                known = [*known, LABEL, *(IMAGE + n for n in registry.names("image"))]
            if name not in known:
                raise FcbenchError(unknown(kind + " codec" * (kind == "image"), name, known))
        for typed, points in self.params.items():
            if typed == LABEL:
                raise FcbenchError("params['label']: labels are coded at a fixed precision and have no parameters")
            plugin = registry.get(*codec_kind(typed))
            try:
                for point in points if isinstance(plugin, ChecksKnobs) else ():
                    plugin.check(point)
            except FcbenchError as error:
                raise FcbenchError(f"params[{typed!r}]: {error}") from error

    def missing(self) -> dict[str, str]:
        """Codecs whose external coder is missing on this machine -> what is missing."""
        out = {}
        for codec in self.codecs:
            try:
                coder_versions(*codec_kind(codec))
            except FcbenchError as error:
                out[codec] = str(error)
        return out

    def runnable(self, say: Callable[[str], object]) -> Suite:
        """The checked suite, without codecs whose program is not on this machine.

        Args:
            say: called with each codec left out and the reason.

        Raises:
            FcbenchError: bad input, or no codec is left.
        """
        self.check()
        missing = self.missing()
        left = tuple(c for c in self.codecs if c not in missing)
        if not left:
            raise FcbenchError(f"no codec of this run can run here: {'; '.join(dict.fromkeys(missing.values()))}")
        for codec, reason in missing.items():
            say(f"skipped {codec}: {reason}")
        return replace(self, codecs=left)

    def _check_heads(self) -> None:
        if self.codec_data and self.head != "tail":
            raise FcbenchError("--codec-data is for tails, before which codecs alone are trained: add --head tail")
        if self.head != "frozen" and (self.neck_loss != "task" or self.task_models or self.task_weights):
            raise FcbenchError(
                "--neck-loss, --task-model and --task-weights are for frozen decoders: add --head frozen"
            )
        for task in (*self.task_models, *self.task_weights):
            if task not in self.tasks:
                raise FcbenchError(unknown("task of the run", task, self.tasks))
        for typed in self.task_models.values():
            registry.get("taskmodel", typed.partition(":")[0])

    def task_model(self, task: str, meta: DatasetMeta) -> tuple[str, str, str | None]:
        """Name, variant and weights of a task's frozen model.

        Raises:
            FcbenchError: none was named, and the data set has no default.
        """
        typed = self.task_models.get(task) or meta.task_models.get(task)
        if typed is None:
            raise FcbenchError(
                f"data set {self.dataset!r} has no task model for {task}: give --task-model {task}=NAME[:VARIANT]; "
                "see `fcbench list taskmodels`"
            )
        name, _, variant = typed.partition(":")
        return name, variant, self.task_weights.get(task)

    def head_label(self, task: str, meta: DatasetMeta) -> str:
        """``trained``, ``tail``, ``frozen:NAME[:VARIANT]``, or a command of the user."""
        if self.head != "frozen":
            return meta.commands.get(task, self.head)
        name, variant, _ = self.task_model(task, meta)
        return f"frozen:{name}" + (f":{variant}" if variant else "")

    @property
    def neck_label(self) -> str:
        """The neck before each head; empty for a tail, which has none."""
        return "" if self.head == "tail" else self.neck

    def quick(self) -> Suite:
        """The suite with short training and few samples: to check that everything works, not to be quoted."""
        n_train, n_test = self.n_train or 300, self.n_test or 40
        return replace(self, name=f"{self.name}-quick", budget=QUICK, n_train=n_train, n_test=n_test)

    def at(self, level: str) -> Suite:
        """The suite with the steps and the tolerance of a level of `BUDGETS`."""
        return replace(self, budget=replace(self.budget, **LEVELS[level]))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data. Roots of data, and folders of weights, are left out: they are paths of one machine."""
        out = asdict(self)
        del out["data_root"], out["codec_data_root"]
        out["weights"] = self.weights and Path(self.weights).name
        out["task_weights"] = {task: Path(file).name for task, file in self.task_weights.items()}
        return out


def default_tasks(dataset: str) -> tuple[str, ...]:
    """Tasks of a run that names none: the paper's four as far as the data set has them; if it has none, all its own.

    >>> default_tasks("scenes"), default_tasks("camvid"), default_tasks("imagenet")
    (('segmentation', 'depth', 'pose', 'captioning'), ('segmentation',), ('classification',))
    """
    carried: tuple[str, ...] = registry.get("dataset", dataset).tasks
    return tuple(t for t in TASKS if t in carried) or carried


def load(path: Path) -> Suite:
    """The ``SUITE`` of a Python file.

    Raises:
        FcbenchError: there is no such file, it cannot be run (the message names the line), or it sets no ``SUITE``.
    """
    if not path.exists():
        raise FcbenchError(f"suite {path} not found: give a Python file that sets SUITE = fcbench.Suite(...)")
    suite = getattr(run_file(path, read_source(path, "the suite"), "the suite"), "SUITE", None)
    if not isinstance(suite, Suite):
        got = "no SUITE" if suite is None else f"SUITE = {shown(suite)}"
        raise FcbenchError(f"{path} sets {got}: it must hold SUITE = fcbench.Suite(...)")
    return suite
