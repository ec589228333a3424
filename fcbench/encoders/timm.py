"""``timm:NAME``: any backbone of timm, through ``features_only``, with tails after the stages of a pyramid.

Split points, fine to coarse:

* a pyramid (ResNet, EfficientNet, ConvNeXt, Swin, Hiera, ...): ``stage1`` to ``stageN``, the entries of timm's
  ``feature_info``, each with its own stride (together: ``pyramid``);
* a model of one stride (ViT, DeiT, DINO, CLIP, SigLIP, EVA, MLP-Mixer, ...): ``block1`` to ``blockN``, a block's output
  as a map, before the final norm; ``block1.global`` to ``blockN.global``, its tokens without a place (class,
  registers), where it has some; ``tokens1`` to ``tokensN``, both together.

The default is the last split point of stride 16, or the last of all if none has that stride.

Maps are [B, C, ceil(H / stride), ceil(W / stride)]. Models that cannot take a size that is not a multiple of their
coarsest stride, or that drop the remainder, get a padded image (edge pixels repeated, right and bottom) to
the next multiple, and their maps are cropped to that shape.

Tails: classification, after every stage of a pyramid whose classifier reads that stage's map alone (EfficientNet,
ResNet, ConvNeXt, RegNet, ...); after every block of a ViT, at ``tokens1`` to ``tokensN`` (without class token and
registers: ``block1`` to ``blockN``).

A tail is compared with the whole network before it is used.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.features import GLOBAL, Encoder, EncoderPlugin, FeatureSpec, WeightsInfo
from fcbench.encoders.shared.padded import promised
from fcbench.encoders.shared.stopping import makers, outputs
from fcbench.encoders.shared.timm_tail import AfterBlock, after, classifier_tail, whole_network
from fcbench.encoders.shared.timm_weights import config_of, info_of, load, specs_of
from fcbench.encoders.shared.tokens import TokenEncoder, global_specs, token_groups
from fcbench.encoders.shared.weights import seeded

SIZE_OPTIONS: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},  # ViTs: position embeddings are interpolated
    {"strict_img_size": False},  # Swin
    {},
)
_FAILURES = AssertionError, RuntimeError, ValueError  # of models that cannot take a size


def default_split_point(specs: Mapping[str, FeatureSpec]) -> str:
    """The last split point of stride 16, or the last of all if none has that stride."""
    return ([n for n, s in specs.items() if s.stride_px == 16] or list(specs))[-1]


class TimmEncoder(TokenEncoder):
    """A frozen timm backbone, cut at split points."""

    levels = 1

    def __init__(
        self, name: str, module: nn.Module, weights: WeightsInfo, device: torch.device, typed_weights: str | None
    ) -> None:
        """Freeze a ``features_only`` model with its weights.

        `name`: as typed, ``timm:resnet18``. `module`: timm's model. `weights`: origin of its weights. `device`:
        where it runs. `typed_weights`: as passed to `Plugin.build`; its tails load their weights from them.
        """
        own = specs_of(info_of(module).get_dicts())
        self._own = tuple(own)
        self.n_global = int(getattr(getattr(module, "model", None), "num_prefix_tokens", 0))
        tokens = own if self.n_global else {}
        super().__init__(name, module, own | global_specs(tokens), weights, device)
        self._typed_weights = typed_weights
        self.module.to(memory_format=torch.channels_last)  # 1.5 times faster on CPUs
        strides = {s.stride_px for s in own.values()}
        self.groups = {"pyramid": tuple(own)} if len(strides) > 1 else {}
        self.groups |= token_groups(tokens)
        is_vit = hasattr(getattr(module, "model", None), "patch_embed")
        stages = tuple(n for n in own if n.startswith("stage") or is_vit)
        self.tails = {"classification": tuple(self.groups) if self.n_global else stages}
        self.default_split_point = default_split_point(own)
        config = config_of(name.partition(":")[2])
        self._native_px = tuple(config.input_size[1:])
        self.normalization = config.mean, config.std
        self._last = str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC")
        self._makers = [] if hasattr(module, "out_indices") else self._find_makers(2 * max(strides))
        self.multiple_px = self._find_multiple(max(strides))

    def maps(self, images: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        try:
            return super().maps(images, split_points)
        except _FAILURES as exc:
            first = (str(exc).splitlines() or ["no reason given"])[0]
            raise FcbenchError(
                f"{self.name} failed on images of {images.shape[-2]}x{images.shape[-1]} ({first}): its own size is "
                f"{self._native_px[0]}x{self._native_px[1]}, try --image-size {self._native_px[0]}"
            ) from exc

    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        n, tokens = 1 + max(self._own.index(name.removesuffix(GLOBAL)) for name in split_points), list[Tensor]()
        front: Any = self.module
        if hasattr(front, "out_indices"):  # the model itself makes maps of what its blocks return
            how = {"norm": False, "output_fmt": front.output_fmt, "intermediates_only": True, "stop_early": True}
            how |= {"return_prefix_tokens": True} if self.n_global else {}
            maps = front.model.forward_intermediates(x, indices=front.out_indices[:n], **how)
            if self.n_global:
                maps, tokens = [m for m, _ in maps], [t.transpose(1, 2)[:, :, None] for _, t in maps]
        else:
            maps = outputs(self._makers[:n], lambda: front(x))
        if self._last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return dict(zip(self._own, maps)) | {f"{name}{GLOBAL}": t for name, t in zip(self._own, tokens)}

    def tail(self, task: str, split_point: str, image_px: tuple[int, int]) -> nn.Module:
        """The rest of the classifier after a stage, compared with the whole network on an image of noise."""
        full = whole_network(self.name.partition(":")[2], self._typed_weights, self.module).to(self.device)

        def rest(cut: str) -> nn.Module:
            if split_point.startswith(("block", "tokens")):
                return AfterBlock(full, cut, image_px)
            return nn.Sequential(_ChannelsLast(), after(full, cut)) if self._last else after(full, cut)

        return classifier_tail(self, full, split_point, image_px, rest)

    def _find_multiple(self, coarsest: int) -> int:
        """1 if maps have the promised sizes for sides that no stride divides, else the coarsest stride [px]."""
        odd = 2 * coarsest + 1
        try:
            with torch.inference_mode():
                maps = self.run(torch.zeros(1, 3, odd, odd, device=self.device), list(self.specs))
                maps = {n: m for n, m in maps.items() if not n.endswith(GLOBAL)}
        except _FAILURES:
            return coarsest
        fits = (tuple(m.shape[1:]) == promised(self.specs[n], (odd, odd)) for n, m in maps.items())
        return 1 if all(fits) else coarsest

    def _find_makers(self, side_px: int) -> list[nn.Module]:
        """The parts of the network whose outputs are the maps, in an image of a side or of its own size; none if they
        cannot be told."""
        for size_px in ((side_px, side_px), self._native_px):
            with suppress(*_FAILURES), torch.inference_mode():
                x = torch.zeros(1, 3, *size_px, device=self.device)
                return makers(self.module, lambda: self.module(x))  # noqa: B023
        return []


class _ChannelsLast(nn.Module):
    """[B, C, h, w] to [B, h, w, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def _create(name: str) -> nn.Module:
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
        every = tuple(range(len(info)))  # by default timm returns a ViT's last three blocks
        found = timm.create_model(name, pretrained=False, features_only=True, out_indices=every, **options)
    return found


def _no_features(name: str, exc: Exception) -> FcbenchError:
    first = (str(exc).splitlines() or [type(exc).__name__])[0]
    return FcbenchError(f"timm provides no feature maps of {name} ({first}): choose a backbone such as resnet18")


@dataclass(frozen=True)
class Plugin(EncoderPlugin):
    """Any timm backbone."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> Encoder:
        name = self._known(variant)
        with seeded():
            module = _create(name)
        info = load(f"timm:{name}", name, module, weights)
        return TimmEncoder(f"timm:{name}", module, info, device, weights)

    @staticmethod
    def _known(variant: str) -> str:
        if not variant:
            raise FcbenchError("timm needs a model: timm:resnet18")
        base, _, tag = variant.partition(".")
        if base not in (models := timm.list_models()):
            raise FcbenchError(unknown("timm model", variant, models))
        tags = timm.list_pretrained(f"{base}.*")
        if tag and variant not in tags:
            raise FcbenchError(unknown("tag of a timm model", variant, tags))
        return variant


PLUGIN = Plugin()
