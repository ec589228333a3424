"""Tails of timm's classifiers: the full network, all of it up to the split point replaced by nothing."""

import copy
from collections.abc import Mapping
from typing import cast

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

TOLERANCE = 1e-5  # How far front and tail may be from the whole network, in units of its largest output


class ClassifierTail(nn.Module, ProbabilisticHead):
    """The rest of a classifier (a `fcbench.core.tasks.Tail`). `network`: a map [B, C, h, w] to logits [B, K].
    `split_point`: of the map. `label_names`: of the K outputs."""

    def __init__(self, network: nn.Module, split_point: str, label_names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.split_point, self.label_names = network, split_point, label_names

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, K]."""
        device = next(self.parameters()).device
        return cast(Tensor, self.network(x[self.split_point].to(device)))

    def loss(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        logits = self(x)
        return F.cross_entropy(logits, batch.to(logits.device))

    def imitation_loss(self, x: Mapping[str, Tensor], uncoded: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy in nats with the probabilities that it states of the uncoded maps."""
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
    """timm's full model with the weights of an encoder. `name`: timm's. `weights`: as the encoder was given. `front`:
    the encoder's module; where its weights are random, the full model gets them."""
    with seeded():
        full = timm.create_model(name, pretrained=False)
    load(f"timm:{name}", name, full, weights)
    if weights == "random":
        own = {n.removeprefix("model.").replace(".", "_"): t for n, t in front.state_dict().items()}
        state = {n: own.get(n.replace(".", "_"), t) for n, t in full.state_dict().items()}
        full.load_state_dict(state)
    return freeze(full)


def after(full: nn.Module, cut: str) -> nn.Module:
    """A copy of a network without what comes before the end of a module: its input is that module's output. `cut`: the
    module's name, ``blocks.4``."""
    rest, parts = copy.deepcopy(full), cut.split(".")
    parent: nn.Module = rest
    for part in parts:
        names = [n for n, _ in parent.named_children()]
        for name in names[: names.index(part) + (part is parts[-1])]:
            setattr(parent, name, nn.Identity())
        parent = getattr(parent, part)
    return rest


def label_names(name: str, full: nn.Module) -> tuple[str, ...]:
    """Synsets of a network's outputs. Raises `FcbenchError`: its outputs are no set of ImageNet's classes that timm
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
    before: nn.Module | None = None,
) -> ClassifierTail:
    """The rest of a network after a split point, compared with all of it on an image of noise.

    `encoder`: its front, cut by timm. `full`: timm's full model with the encoder's weights, frozen. `image_px`: (H, W)
    of the images. `before`: what brings a map [B, C, h, w] into the network's own order. Raises `FcbenchError`: front
    and rest together are not the network.
    """
    cut = info_of(encoder.module).get_dicts()[list(encoder.specs).index(split_point)]["module"]
    noise = torch.randint(0, 256, (1, 3, *image_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        rest = after(full, cut)
        rest = nn.Sequential(before, rest) if before is not None else rest
        tail = ClassifierTail(rest, split_point, label_names(encoder.name, full))
        with torch.inference_mode():
            whole = full(normalized(noise.to(encoder.device), encoder.normalization, encoder.levels))
            split = tail(encoder(noise, [split_point]).maps)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as exc:
        raise FcbenchError(
            f"{encoder.name} has no tail at {split_point} for images of {image_px[0]}x{image_px[1]} "
            f"({(str(exc).splitlines() or [type(exc).__name__])[0]})"
        ) from exc
    require_equal(encoder.name, split_point, whole, split)
    freeze(tail)
    return tail


def require_equal(name: str, split_point: str, whole: Tensor, split: Tensor) -> None:
    """Refuse a tail that with its front is not the network. Raises `FcbenchError`: their outputs differ."""
    limit = TOLERANCE * max(1.0, float(whole.abs().max()))
    if whole.shape != split.shape or float((whole - split).abs().max()) > limit:
        raise FcbenchError(
            f"{name} has no tail at {split_point}: the rest of the network does not read this map alone "
            "(try another split point or image size)"
        )
