"""Multiply-accumulates and parameters of what runs: as executed, counted call by call.

Counted are matrix products, convolutions and attention (PyTorch's `FlopCounterMode`, two operations a
multiply-accumulate); element-wise work and entropy coding are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from fcbench.core.files import write_atomically
from fcbench.core.tasks import Head
from fcbench.measure.bench import Bench
from fcbench.transmit.checkpoint import load as load_checkpoint


def _attention(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


_CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""The one attention kernel that PyTorch's counter does not know."""


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


def n_params(module: nn.Module) -> int:
    """Parameters of a module, trained and frozen.

    >>> n_params(nn.Linear(3, 5))
    20
    """
    return sum(p.numel() for p in module.parameters())


def of_encoder(bench: Bench) -> tuple[int, int]:
    """Multiply-accumulates of one image as far as the split points are computed, and parameters of the encoder.

    Counted once and kept beside the features: a further codec does not run the encoder.
    """
    path = bench.models / f"encoder-macs-{bench.test.store.folder.name}.json"
    if not path.exists():
        image, encoder = bench.test.dataset[0].image[None], bench.encoder
        spent = macs(lambda: encoder(image, bench.splits))
        counts = json.dumps([spent, n_params(encoder.module)])
        write_atomically(path, counts.encode())
    spent, params = json.loads(path.read_text(encoding="utf-8"))
    return spent, params


def of_codec(bench: Bench, checkpoint: Path) -> tuple[int, int, int]:
    """Multiply-accumulates of coding and of decoding a sample, and parameters."""
    codec = load_checkpoint(checkpoint).codec
    features = bench.test.store.maps(0)
    stream = codec.encode(features)
    coding = macs(lambda: codec.encode(features))
    decoding = macs(lambda: codec.decode(stream.payload, features.shapes))
    return coding, decoding, n_params(cast(nn.Module, codec))


def of_readout(bench: Bench, name: str) -> dict[str, tuple[int, int]]:
    """Multiply-accumulates of a sample, and parameters, of neck (with its adapter) and head."""
    task, model = bench.readout(name)
    head, maps = cast(Head, model.head), bench.test.store.batch([0])
    batch, x = task.collate(bench.targets("test", name)([0])), model(maps)
    adapter = 0 if model.adapter is None else n_params(model.adapter)
    return {
        "neck": (macs(lambda: model(maps)), n_params(model.neck) + adapter),
        "head": (macs(lambda: head.predict(x, batch)), n_params(model.head)),
    }


def of_point(bench: Bench, task: str, checkpoint: Path | None) -> tuple[str, str]:
    """Multiply-accumulates [thousands a pixel of the original image] and parameters of each stage, as JSON."""
    found = bench.costs
    if "encoder" not in found:
        found["encoder"] = of_encoder(bench)
    if task not in found:
        found[task] = of_readout(bench, task)
    counts = {"encoder": found["encoder"], **found[task]}
    spent = {stage: n for stage, (n, _) in counts.items()}
    params = {stage: n for stage, (_, n) in counts.items()}
    if checkpoint is not None:
        if str(checkpoint) not in found:
            found[str(checkpoint)] = of_codec(bench, checkpoint)
        spent["encode"], spent["decode"], params["codec"] = found[str(checkpoint)]
    height, width = bench.test.store.sizes_px[0]
    kmac = {k: float(f"{n / 1e3 / (height * width):.6g}") for k, n in spent.items()}
    return json.dumps(kmac), json.dumps(params)
