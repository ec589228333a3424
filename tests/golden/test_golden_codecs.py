"""Exact bytes of the entropy coder, of codecs and of the .fcb file: a change breaks files that exist.

Everything here is integer arithmetic or exact in float32 (dyadic numbers), so that bytes agree on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcbench.coders.strings import StringDecoder, StringEncoder
from fcbench.coders.tables import EntropyTables, Groups
from fcbench.core import registry
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.transmit.container import ContainerReader, ContainerWriter, Header

DATA = Path(__file__).parent / "data"
NAMES = {"entropy.bin", "raw_fp16.fcb", "raw_fp32.fcb", "uniform.fcb"}
SPECS = (FeatureSpec("fine", 3, 8), FeatureSpec("coarse", 4, 16))
Golden = Callable[[str, bytes], None]


def tables() -> EntropyTables:
    out = EntropyTables()
    cdf = torch.tensor([[0, 7, 60000, 65530, 65536], [0, 1, 65535, 65536, 0], [0, 30000, 40000, 65000, 65536]])
    out.fill(cdf, torch.tensor([5, 4, 5]), torch.tensor([-1, 0, 10]), escape=True)
    return out


def symbols() -> tuple[np.ndarray, Groups]:
    """Symbols, some of them escapes of every size, and their tables."""
    n = 300
    index = (np.arange(n) * 7 % 3).astype(np.uint8)
    values = np.array([-1, 1, 10])[index] + np.arange(n) * 5 % 3 - (index == 1)
    values[::29] = [(-1) ** i * 3 ** (i + 4) for i in range(len(values[::29]))]
    return values.astype(np.int32), Groups.by_index(index, 3)


def test_entropy_coder(golden: Golden) -> None:
    values, groups = symbols()
    string = StringEncoder()
    string.put(tables(), values, groups)
    golden("entropy.bin", string.finish()["y"])
    decoded = StringDecoder((DATA / "entropy.bin").read_bytes()).take(tables(), groups)
    assert np.array_equal(decoded, values)


def integers(channels: int, grid: tuple[int, int], seed: int) -> torch.Tensor:
    """[1, C, h, w] multiples of 1/8 in [-4, 4], by a linear congruence."""
    n = channels * grid[0] * grid[1]
    values, state = [], seed
    for _ in range(n):
        state = (1103515245 * state + 12345) % (1 << 31)
        values.append((state >> 16) % 65 - 32)
    return torch.tensor(values).float().reshape(1, channels, *grid) / 8


def samples() -> list[Features]:
    grids = [((5, 7), (3, 4)), ((5, 7), (3, 4)), ((1, 1), (1, 1))]
    return [Features({"fine": integers(3, a, i), "coarse": integers(4, b, 9 + i)}) for i, (a, b) in enumerate(grids)]


def make(name: str, params: dict[str, Any]) -> Any:
    """A codec of dyadic statistics: range [-3.5, 3.5], mean 0; at 3 bits the step is 1."""
    stats = {s.name: FeatureStats(*(torch.full((s.channels,), v) for v in (0.0, 1.0, -3.5, 3.5))) for s in SPECS}
    codec = registry.get("codec", name).build(SPECS, stats, params)
    codec.prepare([integers(s.channels, (16, 16), 77) for s in SPECS])
    codec.freeze()
    return codec


def check(golden: Golden, name: str, codec_name: str, params: dict[str, Any], tmp_path: Path) -> None:
    codec = make(codec_name, params)
    with ContainerWriter(tmp_path / name, Header(codec_name, bytes(range(16)).hex(), SPECS)) as writer:
        for x in samples():
            writer.append(codec.encode(x), x.shapes)
    golden(name, (tmp_path / name).read_bytes())
    for record, x in zip(ContainerReader(DATA / name), samples(), strict=True):
        decoded = codec.decode(record.payload, record.shapes)
        record.verify(decoded)
        with torch.no_grad():
            expected, _ = codec(x.maps)
        for key in expected:
            assert torch.equal(decoded.features.maps[key], expected[key])


def test_raw_fp32(golden: Golden, tmp_path: Path) -> None:
    check(golden, "raw_fp32.fcb", "raw", {"dtype": "fp32"}, tmp_path)


def test_raw_fp16(golden: Golden, tmp_path: Path) -> None:
    check(golden, "raw_fp16.fcb", "raw", {"dtype": "fp16"}, tmp_path)


def test_uniform(golden: Golden, tmp_path: Path) -> None:
    check(golden, "uniform.fcb", "uniform", {"bits": 3}, tmp_path)


def test_every_golden_file_is_read() -> None:
    assert {p.name for p in DATA.iterdir()} == NAMES
