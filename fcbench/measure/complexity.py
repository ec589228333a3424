"""Multiply-accumulates and parameters of a run's stages: as executed, counted call by call.

Counted are matrix products, convolutions and attention (PyTorch's `FlopCounterMode`, two operations per
multiply-accumulate); element-wise work and entropy coding are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from fcbench.core.cache import Cache, cached, digest
from fcbench.features.source import Source
from fcbench.measure.evaluate import Reader
from fcbench.transmit.checkpoint import Loaded


def _attention(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


_CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""The only attention kernel that PyTorch's counter does not know."""


def macs(call: Callable[[], object]) -> int:
    """Multiply-accumulates of a call.

    >>> layer = nn.Linear(3, 5)
    >>> macs(lambda: layer(torch.zeros(2, 3)))
    30
    """
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    with counter, torch.no_grad():
        call()
    return int(counter.get_total_flops()) // 2


def n_weights(module: nn.Module) -> int:
    """Parameters of a module, trained and frozen.

    >>> n_weights(nn.Linear(3, 5))
    20
    """
    return sum(p.numel() for p in module.parameters())


Counts = Mapping[str, tuple[int, int]]
"""Multiply-accumulates per sample, and parameters, by stage."""


class Complexity:
    """Counts of the stages of one source, each counted once."""

    def __init__(self, source: Source, cache: Cache) -> None:
        self._source, self._cache = source, cache
        self._counted: dict[str, Counts] = {}

    def of_encoder(self) -> Counts:
        """Counts of the encoder, up to the split points.

        Kept beside the features: a further run does not run the encoder. Of features that others extracted nothing is
        known.
        """
        if not self._source.test.dataset.has_images:
            return {}
        return self._once("encoder", self._count_encoder)

    def of_readout(self, reader: Reader) -> Counts:
        """Counts of neck (with its adapter) and head."""
        return self._once(reader.task.name, lambda: self._count_readout(reader))

    def of_codec(self, codec: Loaded) -> Counts:
        """Counts of a codec's encoder and decoder; the parameters are those of both."""
        return self._once(codec.sha256, lambda: self._count_codec(codec))

    def of_point(self, readout: Counts, codec: Loaded | None) -> tuple[str, str]:
        """Multiply-accumulates [thousands per pixel of the original image] and parameters by stage, as JSON."""
        stages = {**self.of_encoder(), **readout}
        spent = {stage: n for stage, (n, _) in stages.items()}
        weights = {stage: n for stage, (_, n) in stages.items()}
        if codec is not None:
            coding = self.of_codec(codec)
            spent["encode"], spent["decode"], weights["codec"] = (
                coding["encode"][0],
                coding["decode"][0],
                coding["encode"][1],
            )
        return json.dumps({k: self.kmac_per_px(n) for k, n in spent.items()}), json.dumps(weights)

    def kmac_per_px(self, n_macs: float) -> float:
        """Thousands of multiply-accumulates per pixel of an original image."""
        height, width = self._source.test.features.samples[0].size_px
        return float(f"{n_macs / 1e3 / (height * width):.6g}")

    def _once(self, stage: str, count: Callable[[], Counts]) -> Counts:
        if stage not in self._counted:
            self._counted[stage] = count()
        return self._counted[stage]

    def _count_encoder(self) -> Counts:
        source, encoder = self._source, self._source.encoder
        contents = {
            "encoder": encoder.name,
            "sha256": encoder.weights.sha256,
            "split_points": source.split_points,
            "image_px": source.test.features.image_px,
        }
        path = self._cache.model("encoder-macs", digest(contents), ".json")

        def count() -> bytes:
            image = source.test.dataset[0].image[None]
            spent = macs(lambda: encoder(image, source.split_points))
            return json.dumps([spent, n_weights(encoder.module)]).encode()

        n_macs, weights = json.loads(cached(path, count))
        return {"encoder": (n_macs, weights)}

    def _count_readout(self, reader: Reader) -> Counts:
        model: Any = reader.model
        maps, batch = self._source.test.features.batch([0]), reader.task.collate(reader.targets([0]))
        x = model(maps)
        neck = sum(n_weights(m) for m in (model.neck, model.adapter) if m is not None)
        head: Any = model.head
        return {
            "neck": (macs(lambda: model(maps)), neck),
            "head": (macs(lambda: head.predict(x, batch)), n_weights(head)),
        }

    def _count_codec(self, loaded: Loaded) -> Counts:
        codec: Any = loaded.codec
        features = self._source.test.features.maps(0)
        stream = codec.encode(features)
        weights = n_weights(codec)
        return {
            "encode": (macs(lambda: codec.encode(features)), weights),
            "decode": (macs(lambda: codec.decode(stream.payload, features.shapes)), weights),
        }
