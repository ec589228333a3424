"""What hostile commands are given: good files to spoil, and bad ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fcbench.core import registry
from fcbench.core.codecs import OperatingPoint
from fcbench.core.features import FeatureStats
from fcbench.transmit import checkpoint
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


def fill(folder: Path) -> None:
    """Make the files: suites, ``photo.png``, ``codec.safetensors``, ``photo.fcb``, ``text``, ``folder``, ``pipe``."""
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
