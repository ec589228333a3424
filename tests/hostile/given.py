"""What hostile commands are given: good files to spoil, and bad ones."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import torch as safetensors
from torch import Tensor

from fcbench.core import registry
from fcbench.core.codecs import Bitstream, OperatingPoint
from fcbench.core.features import FeatureStats
from fcbench.transmit import checkpoint, container
from fcbench.transmit.images import encode

SUITES = {
    "syntax.py": b"x = 1\nSUITE = (\n",
    "import.py": b"x = 1\nimport no_such_module\n",
    "field.py": b"import fcbench\n\nSUITE = fcbench.Suite(codec='uniform')\n",
    "nul.py": b"x = 1\ny = '\0'\n",
    "latin.py": b"x = 1\ny = '\xff'\n",
    "raises.py": b"\n\n\nraise RuntimeError('on purpose')\n",
    "exits.py": b"raise SystemExit(0)\n",
    "other.py": b"SUITE = {'codecs': ['uniform']}\n",
    "empty.py": b"",
    "none.py": b"import fcbench\nSUITE = fcbench.Suite(params={'uniform': ({'bits': None},)})\n",
    "bots.py": b"import fcbench\nSUITE = fcbench.Suite(params={'uniform': ({'bots': 4},)})\n",
    "string.py": b"import fcbench\nSUITE = fcbench.Suite(codecs='unifrom')\n",
    "seeds.py": b"import fcbench\nSUITE = fcbench.Suite(seeds=())\n",
    "budget.py": b"import fcbench\nSUITE = fcbench.Suite(budget=fcbench.Budget(task_rate=float('nan')))\n",
}

CHECKPOINTS: dict[str, dict[str, Any]] = {
    "int-params": {"params": 5},
    "null-params": {"params": None},
    "null-bits": {"params": {"bits": None}},
    "many-bits": {"params": {"bits": 99}},
    "no-maps": {"specs": []},
    "int-encoder": {"source": {"encoder": 7, "weights_sha256": ""}},
    "red-encoder": {"source": {"encoder": "\x1b[31mred", "weights_sha256": ""}},
    "red-codec": {"codec": "\x1b[31mred"},
    "list-codec": {"codec": ["uniform"]},
    "other-codec": {"codec": "pq", "params": {"dims": 4, "bits": 4}},
    "int-file": {"file": 5},
    "null-version": {"version": None},
    "new-version": {"version": 99},
}
"""Stem of a forged checkpoint -> fields of its header, under a digest that fits."""
MAPS: dict[str, dict[str, Any]] = {
    "minus-channels": {"channels": -1},
    "no-channels": {"channels": 0},
    "many-channels": {"channels": 10**9},
    "other-layout": {"layout": "HWC"},
    "int-name": {"name": 3},
}
"""The same, fields of the one map."""


def fill(folder: Path) -> None:
    """Make the files: suites, ``photo.png``, ``codec.safetensors``, ``photo.fcb``, ``text``, ``folder``, ``pipe``.

    Then what is damaged or forged: ``cut`` and ``flipped``; checkpoints; streams whose checksums fit.
    """
    for name, content in SUITES.items():
        (folder / name).write_bytes(content)
    (folder / "text").write_text("some text\n")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(folder / "photo.png")
    (folder / "cut.png").write_bytes((folder / "photo.png").read_bytes()[:100])
    make_codec(folder / "codec.safetensors")
    encode([folder / "photo.png"], folder / "codec.safetensors", folder / "photo.fcb", device=torch.device("cpu"))
    content = (folder / "photo.fcb").read_bytes()
    (folder / "cut.fcb").write_bytes(content[:-3])
    (folder / "flipped.fcb").write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    forge_checkpoints(folder, (folder / "codec.safetensors").read_bytes())
    forge_streams(folder, container.ContainerReader(folder / "photo.fcb"))


def forge_checkpoints(folder: Path, good: bytes) -> None:
    """`CHECKPOINTS` and `MAPS`; one lacks a tensor, one most of its entropy tables."""
    n_header = int.from_bytes(good[:8], "little")
    meta = json.loads(json.loads(good[8 : 8 + n_header])["__metadata__"]["fcbench_codec"])
    del meta["digest"]
    state = safetensors.load(good)
    for stem, fields in CHECKPOINTS.items():
        _checkpoint(folder / f"{stem}.safetensors", meta | fields, state)
    for stem, fields in MAPS.items():
        _checkpoint(folder / f"{stem}.safetensors", meta | {"specs": [meta["specs"][0] | fields]}, state)
    few = {name: tensor for name, tensor in state.items() if name != "maps.0.centroids"}
    _checkpoint(folder / "few-tensors.safetensors", meta, few)
    rows = {f"maps.0.tables.{name}": state[f"maps.0.tables.{name}"][:3].clone() for name in ("cdf", "length", "offset")}
    _checkpoint(folder / "few-rows.safetensors", meta, {**state, **rows})


def _checkpoint(path: Path, meta: Mapping[str, Any], state: dict[str, Tensor]) -> None:
    whole = json.dumps({**meta, "digest": checkpoint._digest(meta, state)})
    path.write_bytes(safetensors.save(state, {"fcbench_codec": whole}))


def forge_streams(folder: Path, good: container.ContainerReader) -> None:
    """Streams with another codec, channels, stride, names, check, more bytes, no samples."""
    record, header = good[0], good.header
    (spec,) = header.specs
    changes: dict[str, dict[str, Any]] = {
        "other-codec": {"codec": "pq"},
        "more-channels": {"specs": (replace(spec, channels=spec.channels + 1),)},
        "other-stride": {"specs": (replace(spec, stride_px=1),)},
        "red-name": {"specs": (replace(spec, name="\x1b[31mred"),)},
    }
    for stem, change in changes.items():
        _stream(folder / f"{stem}.fcb", replace(header, **change), record)
    few_rows = container.Header(header.codec, checkpoint.load(folder / "few-rows.safetensors").sha256, header.specs)
    _stream(folder / "few-rows.fcb", few_rows, record)
    _stream(folder / "other-check.fcb", header, replace(record, check=record.check ^ 1))
    _stream(folder / "surplus.fcb", header, replace(record, payload=record.payload + b"\1"))
    _stream(folder / "zeros.fcb", header, replace(record, payload=bytes(9)))
    content = (folder / "photo.fcb").read_bytes()
    head = content[: 7 + int.from_bytes(content[5:7], "little") - 4] + bytes(4)
    (folder / "empty.fcb").write_bytes(head + zlib.crc32(head).to_bytes(4, "little"))


def _stream(path: Path, header: container.Header, record: container.Record) -> None:
    shapes = dict(zip((s.name for s in header.specs), record.shapes.values()))
    with container.ContainerWriter(path, header) as writer:
        writer.append(Bitstream({"y": record.payload}, record.n_symbols, record.check), shapes)


def make_codec(path: Path) -> None:
    """A checkpoint of ``uniform`` for the default split point of ``hiera_nano``."""
    encoder = registry.build_encoder("hiera_nano", None, torch.device("cpu"))
    spec = encoder.specs[encoder.default_split_point]
    x = torch.randn(4, spec.channels, 4, 4, generator=torch.Generator().manual_seed(0))
    flat = x.transpose(0, 1).flatten(1)
    stats = {spec.name: FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))}
    codec: Any = registry.get("codec", "uniform").build((spec,), stats, {"bits": 4})
    codec.prepare([x])
    codec.freeze()
    source = checkpoint.Source(encoder.name, encoder.weights.sha256)
    checkpoint.save(path, codec, OperatingPoint("uniform", {"bits": 4}), (spec,), source)
