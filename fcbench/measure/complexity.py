"""Cost of a run's stages: multiply-accumulates, parameters, and time per sample.

Counted are matrix products, convolutions and attention, as executed, call by call (PyTorch's `FlopCounterMode`, two
operations per multiply-accumulate); element-wise work and entropy coding are not. Times are of single samples in a warm
process, with the threads of the run; while other processes work, they are longer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from fcbench.core.cache import Cache, cached, digest
from fcbench.core.libraries import code_of
from fcbench.features.source import Source
from fcbench.measure.evaluate import Reader
from fcbench.results import provenance
from fcbench.transmit.checkpoint import Loaded
from fcbench.transmit.coders import timed
from fcbench.transmit.senders import typical

N_TIMED = 8  # Samples that a stage is timed on, after a first that warms up
ENOUGH_MS = 2000.0  # Fewer of them, if they take longer


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


def machine(device: torch.device) -> dict[str, Any]:
    """What computes, by column of a row."""
    return {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "cpu": provenance.cpu_model(),
        "threads": torch.get_num_threads(),
    }


def latency_ms(call: Callable[[int], object], n_samples: int, device: torch.device) -> float:
    """Median time of a call for one sample, without the first, which warms up [ms]. `call`: for a sample by its index,
    on the device."""

    def whole(i: int) -> None:
        call(i)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    times = list[float]()
    with torch.inference_mode():
        while len(times) < n_samples and (len(times) < 2 or sum(times) < ENOUGH_MS):
            times.append(timed(lambda: whole(len(times)))[1])
    return typical(times)


class Cost(NamedTuple):
    """Cost of a stage."""

    n_macs: int  # multiply-accumulates per sample
    n_weights: int  # parameters
    ms: float | None = None  # per sample; None if it was not measured here, or there is no network


Costs = Mapping[str, Cost]
"""By stage."""


class Complexity:
    """Costs of the stages of one source, each measured once."""

    def __init__(self, source: Source, cache: Cache, device: torch.device) -> None:
        self._source, self._cache, self._device = source, cache, device
        self._n_timed = min(1 + N_TIMED, len(source.test.features))
        self._found: dict[str, Costs] = {}

    def of_encoder(self) -> Costs:
        """Cost of the encoder, up to the split points.

        Kept in the cache: a further run on the machine does not run the encoder. Of features that others extracted
        nothing is known.
        """
        if not self._source.test.dataset.has_images:
            return {}
        return self._once("encoder", self._measure_encoder)

    def of_readout(self, reader: Reader) -> Costs:
        """Costs of neck (with its adapter) and head."""
        return self._once(reader.task.name, lambda: self._measure_readout(reader))

    def of_codec(self, codec: Loaded) -> Costs:
        """Costs of a codec's encoder and decoder, without times; the parameters are those of both."""
        return self._once(codec.sha256, lambda: self._count_codec(codec))

    def columns(self, readout: Costs, codec: Loaded | None) -> dict[str, Any]:
        """Costs of a point's stages by column of its rows."""
        stages = {**self.of_encoder(), **readout}
        times = {f"{stage}_ms": cost.ms for stage, cost in stages.items()}
        spent = {stage: cost.n_macs for stage, cost in stages.items()}
        weights = {stage: cost.n_weights for stage, cost in stages.items()}
        if codec is not None:
            coding = self.of_codec(codec)
            spent |= {stage: cost.n_macs for stage, cost in coding.items()}
            weights["codec"] = coding["encode"].n_weights
        kmac = {stage: self.kmac_per_px(n) for stage, n in spent.items()}
        return {"kmac_per_px": json.dumps(kmac), "n_params": json.dumps(weights), **times}

    def kmac_per_px(self, n_macs: float) -> float:
        """Thousands of multiply-accumulates per pixel of the original images. `n_macs`: of a sample."""
        features = self._source.test.features
        return float(f"{n_macs / 1e3 / (features.n_px / len(features)):.6g}")

    def _once(self, stage: str, measure: Callable[[], Costs]) -> Costs:
        if stage not in self._found:
            self._found[stage] = measure()
        return self._found[stage]

    def _measure_encoder(self) -> Costs:
        source, encoder = self._source, self._source.encoder
        contents = {
            "encoder": encoder.name,
            "sha256": encoder.weights.sha256,
            "split_points": source.split_points,
            "image_px": source.test.features.image_px,
            "code": code_of(encoder),
        }
        here = {**contents, "machine": machine(self._device)}

        def count() -> bytes:
            image = source.test.dataset[0].image[None]
            spent = macs(lambda: encoder(image, source.split_points))
            return json.dumps([spent, n_weights(encoder.module)]).encode()

        def measure() -> bytes:
            images = [source.test.dataset[i].image[None] for i in range(self._n_timed)]
            ms = latency_ms(lambda i: encoder(images[i], source.split_points), self._n_timed, self._device)
            return json.dumps(ms).encode()

        n_macs, weights = json.loads(cached(self._cache.model("encoder-macs", digest(contents), ".json"), count))
        ms = json.loads(cached(self._cache.model("encoder-ms", digest(here), ".txt"), measure))
        return {"encoder": Cost(n_macs, weights, ms)}

    def _measure_readout(self, reader: Reader) -> Costs:
        model, n = reader.model, self._n_timed
        samples = [self._source.test.features.batch([i]) for i in range(n)]
        batches = [reader.task.collate(reader.targets([i])) for i in range(n)]
        inputs = [model(maps) for maps in samples]

        def cost(call: Callable[[int], object], *modules: nn.Module | None) -> Cost:
            weights = sum(n_weights(m) for m in modules if m is not None)
            return Cost(macs(lambda: call(0)), weights, latency_ms(call, n, self._device) if weights else None)

        return {
            "neck": cost(lambda i: model(samples[i]), model.neck, model.adapter),
            "head": cost(lambda i: model.head.predict(inputs[i], batches[i]), model.head),
        }

    def _count_codec(self, loaded: Loaded) -> Costs:
        codec: Any = loaded.codec
        features = self._source.test.features.maps(0)
        stream = codec.encode(features)
        weights = n_weights(codec)
        return {
            "encode": Cost(macs(lambda: codec.encode(features)), weights),
            "decode": Cost(macs(lambda: codec.decode(stream.payload, features.shapes)), weights),
        }
