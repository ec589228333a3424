"""The layers of a network before its heads, as a chain that can be cut and resumed."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fcbench.core.features import FeatureSpec

PROBE_PX = 1024
FINEST_STRIDE_PX = 4
UNREAD = "aux"  # Key of the map that only training reads
RESNET = {f"layer{i}": f"c{i + 1}" for i in (1, 2, 3, 4)}


class Backbone(nn.Module):
    """Steps one after the other; with or without a feature pyramid network on the outputs of some.

    `steps`: layers by name, in order. `outputs`: key under which the rest reads a step's output, by index
    of the step. `fpn`: reads these outputs; None if the heads do. `specs`: split points, fine to coarse. `points`:
    index of the step before a split point; without the pyramid's levels. `levels`: split points
    that are the pyramid's levels -> their keys.
    """

    def __init__(self, steps: Mapping[str, nn.Module], outputs: Mapping[int, str], fpn: Any) -> None:
        super().__init__()
        self.steps, self.fpn = nn.ModuleList(steps.values()), fpn
        self.outputs = dict(outputs)
        extra = None if fpn is None else fpn.extra_blocks
        self._sends_extra = isinstance(extra, LastLevelP6P7) and not extra.use_P5
        shapes = self._shapes()
        named = {RESNET[n]: i for i, n in enumerate(steps) if n in RESNET}
        self.points = named or _by_stride([stride for _, stride in shapes], self.outputs)
        specs = [FeatureSpec(name, *shapes[i]) for name, i in self.points.items()]
        self.levels: dict[str, str] = {}
        if fpn is not None:
            with torch.no_grad():
                maps = copy.deepcopy(self).to("meta").eval().forward(_probe())
            keys = list(maps)[: None if self._sends_extra else len(self.outputs)]
            self.levels = {f"fpn{i}": key for i, key in enumerate(keys, 1)}
            specs += [FeatureSpec(name, *_shape(maps[key])) for name, key in self.levels.items()]
        self.specs = {s.name: s for s in sorted(specs, key=lambda s: s.stride_px)}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Split points that are coded together."""
        read = tuple(name for name, i in self.points.items() if i in self.outputs)
        trunk = read if len(read) == len(self.outputs) > 1 else tuple(self.points)
        return {"trunk": trunk} | ({"fpn": tuple(self.levels)} if self.levels else {})

    @property
    def resumable(self) -> tuple[str, ...]:
        """Split points and groups from which the rest of the network can be computed."""
        single = [name for name, i in self.points.items() if i <= min(self.outputs)]
        trunk = {self.points[name] for name in self.groups["trunk"]}
        groups = ["trunk"] if len(self.outputs) > 1 and trunk >= set(self.outputs) else []
        return (*single, *groups, *(["fpn"] if self.levels else []))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Inputs of the rest of the network for normalized images [B, 3, H, W], by key."""
        return self.read({-1: x})

    def maps(self, x: Tensor, split_points: Iterable[str]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] at split points of normalized images [B, 3, H, W]; nothing after them is computed."""
        wanted = set(split_points)
        if levels := wanted & set(self.levels):
            found = self.chain(x, len(self.steps))
            pyramid = self._pyramid({key: found[i] for i, key in self.outputs.items()})
            of_levels = {name: pyramid[self.levels[name]] for name in levels}
            return of_levels | {name: found[self.points[name]] for name in wanted - levels}
        found = self.chain(x, 1 + max(self.points[name] for name in wanted))
        return {name: found[self.points[name]] for name in wanted}

    def chain(self, x: Tensor, n_steps: int) -> list[Tensor]:
        """Outputs of the first steps."""
        found = []
        for step in list(self.steps)[:n_steps]:
            x = step(x)
            found.append(x)
        return found

    def resume(self, received: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of the rest of the network, by key, from the maps at a name in `resumable`."""
        if set(received) == set(self.levels):
            keys, maps = list(self.levels.values()), [received[name] for name in self.levels]
            if not self._sends_extra and self.fpn.extra_blocks is not None:
                maps, keys = self.fpn.extra_blocks(maps, maps, keys)
            return dict(zip(keys, maps))
        return self.read({self.points[name]: m for name, m in received.items()})

    def read(self, known: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Inputs of the rest of the network, from outputs of steps by index; -1 is the image."""
        run, x, found = self.steps_after(known), known.get(-1), {}
        for i, step in enumerate(self.steps):
            x = known[i] if i in known else step(x) if i in run else None
            if i in self.outputs:
                found[self.outputs[i]] = x
        return self._pyramid(found)

    def steps_after(self, known: Iterable[int]) -> set[int]:
        """Indices of the steps that must run if the outputs of some are known."""
        return {i for o in self.outputs for i in range(1 + max(k for k in known if k <= o), o + 1)}

    def rest(self, received: Sequence[str]) -> list[nn.Module]:
        """The layers that run on received maps."""
        if set(received) == set(self.levels):
            extra = self.fpn.extra_blocks
            return [extra] if isinstance(extra, nn.Module) and not self._sends_extra else []
        after = self.steps_after([self.points[name] for name in received])
        return [self.steps[i] for i in sorted(after)] + ([self.fpn] if self.fpn is not None else [])

    def _pyramid(self, found: dict[str, Any]) -> dict[str, Tensor]:
        return found if self.fpn is None else dict(self.fpn(found))

    def _shapes(self) -> list[tuple[int, int]]:
        """Channels and stride [px] of each step's output."""
        with torch.no_grad():
            return [_shape(m) for m in copy.deepcopy(self).to("meta").eval().chain(_probe(), len(self.steps))]


def _probe() -> Tensor:
    return torch.empty(1, 3, PROBE_PX, PROBE_PX, device="meta")


def _shape(m: Tensor) -> tuple[int, int]:
    return int(m.shape[1]), PROBE_PX // int(m.shape[-1])


def _by_stride(strides: Sequence[int], outputs: Iterable[int]) -> dict[str, int]:
    """One step for each stride: the first that the rest of the network reads, else the last.

    >>> _by_stride([2, 4, 4, 8, 8], [3])
    {'c2': 2, 'c3': 3}
    """
    found = {}
    for stride in sorted({s for s in strides if s >= FINEST_STRIDE_PX}):
        places = [i for i, s in enumerate(strides) if s == stride]
        found[f"c{int(math.log2(stride))}"] = next((i for i in places if i in outputs), places[-1])
    return found


def backbone_of(network: Any) -> Backbone:
    """The backbone of one of torchvision's detection or segmentation networks; it shares its layers."""
    own, fpn = network.backbone, None
    if isinstance(own, BackboneWithFPN):
        own, fpn = own.body, own.fpn
    if isinstance(own, IntermediateLayerGetter):
        names = list(own)
        read = {names.index(str(name)): str(key) for name, key in own.return_layers.items() if key != UNREAD}
        return Backbone(dict(own.items()), read, fpn)
    parts = [list(part) for part in own.features] + [[block] for block in own.extra]  # SSDlite
    steps = [step for part in parts for step in part]
    ends = [sum(map(len, parts[: i + 1])) - 1 for i in range(len(parts))]
    return Backbone({str(i): s for i, s in enumerate(steps)}, {end: str(i) for i, end in enumerate(ends)}, fpn)
