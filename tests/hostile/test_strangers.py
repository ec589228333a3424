"""Files of strangers: what a library decodes that is not ours runs in a process of its own, within limits."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from warm import ROOT, Warm

from fcbench.core import registry
from fcbench.core.codecs import Bitstream, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.testing.codecs import SOURCE, make
from fcbench.testing.maps import ONE, features
from fcbench.transmit import checkpoint
from fcbench.transmit.coders import Coders, Limits
from fcbench.transmit.container import ContainerReader, ContainerWriter, Record

GOLDEN = ROOT / "tests" / "golden" / "streams"
CRASH = Path(__file__).with_name("cases") / "codec-sz3-payload-crash.json"
"""A payload whose seal fits, and on which SZ3 of imagecodecs 2025.3.30 ends the process."""


@pytest.fixture
def sz3(tmp_path: Path) -> Path:
    """``sz3.safetensors``; ``good.fcb``, ``bad.fcb``."""
    (tmp_path / "sz3.safetensors").write_bytes(lzma.decompress((GOLDEN / "sz3.safetensors.xz").read_bytes()))
    reader, crash = ContainerReader(GOLDEN / "sz3.fcb"), json.loads(CRASH.read_text())
    for name, payload in (("good", reader[2].payload), ("bad", bytes.fromhex(crash["data"]["payload"]["hex"]))):
        with ContainerWriter(tmp_path / f"{name}.fcb", reader.header) as writer:
            record = reader[2]
            writer.append(Bitstream({"": payload}, record.n_symbols, record.check), record.shapes)
    return tmp_path


def test_a_file_that_crashes_a_library_is_one_clear_error(warm: Warm, sz3: Path) -> None:
    command = ["decode", "--checkpoint", "sz3.safetensors", "-o"]
    outcome = warm([*command, "features.safetensors", "bad.fcb"], sz3, seconds=60)
    assert outcome.code == 1 and "Traceback" not in outcome.output, outcome
    assert re.search(
        "Error: (the process that decodes was ended|.*(sz3 failed|out of step|another format))", outcome.output
    ), outcome
    for name, options in (("apart", []), ("here", ["--trust"])):
        outcome = warm([*command, f"{name}.safetensors", "good.fcb", *options], sz3, seconds=60)
        assert outcome.code == 0, outcome
    apart, here = (load_file(sz3 / f"{name}.safetensors") for name in ("apart", "here"))
    assert apart.keys() == here.keys() and all(torch.equal(apart[k], here[k]) for k in apart)


PLUGIN = """
import os, time
from fcbench.codecs.raw import PLUGIN as RAW, Raw

class Hostile(Raw):
    def decode(self, payload, grids):
        if payload[:4] == bytes(4):
            time.sleep(600)
        if payload[:4] == bytes([1] * 4):
            self.more = bytearray(4 << 30)
        if payload[:4] == bytes([2] * 4):
            os.abort()
        return super().decode(payload, grids)

class Plugin(type(RAW)):
    def build(self, specs, stats, params):
        return Hostile(specs, stats, str(params["dtype"]))

PLUGIN = Plugin()
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of a codec that hangs, wants memory or crashes, as the payload says."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "hostile.py").write_text(PLUGIN)
    name = registry.use("codec", str(folder / "hostile.py"))
    knobs = {"dtype": "fp32"}
    codec: Any = make(name, ONE, knobs)
    checkpoint.save(folder / "c.safetensors", codec, OperatingPoint(name, knobs), ONE, SOURCE)
    yield folder / "c.safetensors"


@pytest.mark.parametrize("first", range(3))
def test_a_decoder_within_limits_cannot_take_the_machine(hostile: Path, first: int) -> None:
    loaded, x = checkpoint.load(hostile), features(ONE, (5, 7))
    good = loaded.codec.encode(x)
    bad = bytes([first] * 4) + good.payload[4:]
    with Coders(1, Limits(1 << 30, 3.0, registry.files_in_use())) as coders:
        records = _records(hostile.parent / "a.fcb", loaded, x, [good.payload, bad])
        results = coders.decode(hostile, loaded, records)
        assert next(results)[1][0].check == good.check
        with pytest.raises(FcbenchError, match="process that decodes was ended"):
            next(results)


IMAGE_PLUGIN = """
import os, time
from fcbench.images.jpeg import PLUGIN as JPEG
from fcbench.images.shared.coder import ImageCodec

class Hostile(ImageCodec):
    def decode(self, data):
        if data[:1] == b"\\0":
            time.sleep(600)
        if data[:1] == b"\\1":
            self.__dict__["more"] = bytearray(4 << 30)
        if data[:1] == b"\\2":
            os.abort()
        return super().decode(data)

PLUGIN = Hostile(**vars(JPEG))
"""


def test_an_image_decoder_within_limits_cannot_take_the_machine(tmp_path: Path) -> None:
    (tmp_path / "hostile_image.py").write_text(IMAGE_PLUGIN)
    name = registry.use("image", str(tmp_path / "hostile_image.py"))
    good = registry.get("image", name).encode(np.zeros((3, 8, 9), np.uint8), {"quality": 50})
    with Coders(1, Limits(1 << 30, 3.0, registry.files_in_use())) as coders:
        for bad in (b"\0", b"\1", b"\2"):
            results = coders.decode_files("image", name, [Record(p, {}, 0, 0) for p in (good, bad)])
            assert next(results)[1][0].shape == (3, 8, 9)
            with pytest.raises(FcbenchError, match="process that decodes was ended"):
                next(results)


def _records(path: Path, loaded: checkpoint.Loaded, x: Any, payloads: list[bytes]) -> ContainerReader:
    from fcbench.transmit.container import Header

    with ContainerWriter(path, Header(loaded.point.codec, loaded.sha256, loaded.specs)) as writer:
        for payload in payloads:
            writer.append(Bitstream({"": payload}, 1, 0), x.shapes)
    return ContainerReader(path)
