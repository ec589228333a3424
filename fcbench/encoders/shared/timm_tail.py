"""Tails of timm's classifiers: the full network without the part up to the split point."""

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
from fcbench.encoders.shared.timm_weights import load
from fcbench.encoders.shared.weights import freeze, seeded

TOLERANCE = 1e-5  # Maximum difference of front and tail from the whole network, in units of its largest output


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
        full = timm.create_model(name, pretrained=False)
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


def label_names(name: str, full: nn.Module) -> tuple[str, ...]:
    """Synsets of a network's outputs. Raises `FcbenchError`: its outputs are not a set of ImageNet's classes that timm
    knows."""
    subset = infer_imagenet_subset(full)
    if subset is None:
        n = getattr(full, "num_classes", 0)
        raise FcbenchError(f"timm:{name} has {n} classes with unknown names: --head tail needs ImageNet's")
    return tuple(ImageNetInfo(subset).label_names())


def require_equal(name: str, split_point: str, whole: Tensor, split: Tensor) -> None:
    """Check that front and tail together equal the network. Raises `FcbenchError`: their outputs differ."""
    limit = TOLERANCE * max(1.0, float(whole.abs().max()))
    if whole.shape != split.shape or float((whole - split).abs().max()) > limit:
        raise FcbenchError(
            f"{name} has no tail at {split_point}: the rest of the network does not read this map alone "
            "(try another split point or image size)"
        )
