"""Tails of timm's classifiers: the full network without the part up to the split point."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import ProbabilisticHead
from fcbench.encoders.shared.padded import PaddedEncoder, normalized
from fcbench.encoders.shared.timm_weights import info_of, load
from fcbench.encoders.shared.weights import freeze, seeded

TOLERANCE = 1e-5  # Maximum difference of front and tail from the whole network, in units of its largest output


class ClassifierTail(nn.Module, ProbabilisticHead):
    """The rest of a classifier (a `fcbench.core.tasks.Tail`). `network`: maps [B, C, h, w] to logits [B, K].
    `split_points`: of the maps. `label_names`: of the K outputs."""

    def __init__(self, network: nn.Module, split_points: tuple[str, ...], label_names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.split_points, self.label_names = network, split_points, label_names

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, K]."""
        device = next(self.parameters()).device
        return cast(Tensor, self.network(*(x[name].to(device) for name in self.split_points)))

    def loss(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        logits = self(x)
        return F.cross_entropy(logits, batch.to(logits.device))

    def imitation_loss(self, x: Mapping[str, Tensor], uncoded: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy in nats with its own probabilities for the uncoded maps."""
        with torch.no_grad():
            wanted = self(uncoded).softmax(-1)
        return F.cross_entropy(self(x), wanted)

    def predict(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Log-probabilities of the classes, float64 [B, K]."""
        return cast(Tensor, self(x)).double().log_softmax(-1)

    def log_likelihood(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Log-probability of each sample's class in nats: [B]."""
        logits = self(x)
        return -F.cross_entropy(logits, batch.to(logits.device), reduction="none")


def whole_network(name: str, weights: str | None, front: nn.Module) -> nn.Module:
    """timm's full model with the weights of an encoder. `name`: timm's. `weights`: as given for the encoder. `front`:
    the encoder's module; if its weights are random, the full model gets them."""
    with seeded():
        # positions of a ViT are interpolated, as in its front
        dynamic = getattr(getattr(front, "model", None), "dynamic_img_size", False)
        how: dict[str, Any] = {"dynamic_img_size": True} if dynamic else {}
        full = timm.create_model(name, pretrained=False, **how)
    load(f"timm:{name}", name, full, weights)
    if weights == "random":
        own = {n.removeprefix("model.").replace(".", "_"): t for n, t in front.state_dict().items()}
        state = {n: own.get(n.replace(".", "_"), t) for n, t in full.state_dict().items()}
        full.load_state_dict(state)
    return freeze(full)


def after(full: nn.Module, cut: str) -> nn.Module:
    """A copy of a network without the part up to the end of a module: its input is that module's output. `cut`: the
    module's name, ``blocks.4``."""
    rest, parts = copy.deepcopy(full), cut.split(".")
    parent: nn.Module = rest
    for part in parts:
        names = [n for n, _ in parent.named_children()]
        for name in names[: names.index(part) + (part is parts[-1])]:
            setattr(parent, name, nn.Identity())
        parent = getattr(parent, part)
    return rest


class _Skipped(nn.Module):
    """In the place of a block before the split point: its input, whatever else it gets."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


class _Arrived(nn.Module):
    """In the place of the block at the split point: the tokens that arrived."""

    tokens: Tensor

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.tokens


class _Blank(nn.Module):
    """In the place of the patch embedding's convolution: an output of its shape."""

    def __init__(self, projection: nn.Conv2d) -> None:
        super().__init__()
        self.n_channels, self.stride = projection.out_channels, projection.stride

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.n_channels, x.shape[-2] // self.stride[0], x.shape[-1] // self.stride[1])


class AfterBlock(nn.Module):
    """A copy of a ViT that goes on from a block's tokens. It is run on a blank image, so that positions and whatever
    else blocks get besides are its own. `cut`: the block's name, ``blocks.4``. `image_px`: (H, W) of the images."""

    def __init__(self, full: nn.Module, cut: str, image_px: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.image_px, place = copy.deepcopy(full), image_px, int(cut.rpartition(".")[2])
        blocks = cast(nn.ModuleList, self.network.get_submodule(cut.rpartition(".")[0]))
        for i in range(place):
            blocks[i] = _Skipped()
        self.arrived = blocks[place] = _Arrived()
        embedding: Any = self.network.patch_embed
        embedding.proj = _Blank(embedding.proj)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits [B, K] of a map [B, C, h, w] and tokens without a place [B, C, 1, k]."""
        parts = [m.flatten(2).transpose(1, 2) for m in (tokens, x) if m is not None]
        self.arrived.tokens = torch.cat(parts, 1)
        blank = x.new_zeros(1, 3, *self.image_px).expand(len(x), -1, -1, -1)
        try:
            return cast(Tensor, self.network(blank))
        finally:
            del self.arrived.tokens  # with what their gradient needs, a tail could not be copied


def label_names(name: str, full: nn.Module) -> tuple[str, ...]:
    """Synsets of a network's outputs. Raises `FcbenchError`: its outputs are not a set of ImageNet's classes that timm
    knows."""
    subset = infer_imagenet_subset(full)
    if subset is None:
        n = getattr(full, "num_classes", 0)
        raise FcbenchError(f"{name} states {n} classes whose names are not known: --head tail needs ImageNet's")
    return tuple(ImageNetInfo(subset).label_names())


def classifier_tail(
    encoder: PaddedEncoder,
    full: nn.Module,
    split_point: str,
    image_px: tuple[int, int],
    rest_of: Callable[[str], nn.Module] | None = None,
) -> ClassifierTail:
    """The rest of a network after a split point, compared with all of it on an image of noise.

    `encoder`: its front, cut by timm. `full`: timm's full model with the encoder's weights, frozen. `image_px`: (H, W)
    of the images. `rest_of`: what comes after a module, by its name; None for `after`. Raises `FcbenchError`: front and
    rest together are not the network.
    """
    names = encoder.groups.get(split_point, (split_point,))
    cut = info_of(encoder.module).get_dicts()[list(encoder.specs).index(names[0])]["module"]
    x = noise(image_px).to(encoder.device)
    try:
        rest = rest_of(cut) if rest_of else after(full, cut)
        tail = ClassifierTail(rest, names, label_names(encoder.name, full))
        with torch.inference_mode():
            whole = full(normalized(x, encoder.normalization, encoder.levels))
            split = tail(encoder(x, names).maps)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as exc:
        raise FcbenchError(
            f"{encoder.name} has no tail at {split_point} for images of {image_px[0]}x{image_px[1]} "
            f"({(str(exc).splitlines() or [type(exc).__name__])[0]})"
        ) from exc
    require_equal(encoder.name, split_point, whole, split)
    freeze(tail)
    return tail


def noise(image_px: tuple[int, int]) -> Tensor:
    """An image of noise, uint8 [1, 3, H, W]."""
    return torch.randint(0, 256, (1, 3, *image_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def require_equal(name: str, split_point: str, whole: Tensor, split: Tensor) -> None:
    """Check that front and tail together equal the network. Raises `FcbenchError`: their outputs differ."""
    limit = TOLERANCE * max(1.0, float(whole.abs().max()))
    if whole.shape != split.shape or float((whole - split).abs().max()) > limit:
        raise FcbenchError(
            f"{name} has no tail at {split_point}: the rest of the network does not read this map alone "
            "(try another split point or image size)"
        )
