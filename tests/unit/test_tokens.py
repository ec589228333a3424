"""Tokens without a place (class, registers): a map [B, C, 1, k] beside that of the grid, with statistics of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from fcbench.core import registry
from fcbench.core.codecs import Bitstream
from fcbench.core.errors import FcbenchError
from fcbench.core.features import GLOBAL, Features, FeatureSpec
from fcbench.features.encoding import build_encoder
from fcbench.testing.codecs import train
from fcbench.testing.maps import correlated, statistics
from fcbench.transmit.container import ContainerReader, ContainerWriter, Header

GRID, TOKENS = FeatureSpec("block2", 12, 16), FeatureSpec("block2" + GLOBAL, 12, 1, "BNC")
"""Their maps: (h, w) of the grid, k tokens a hundred times as large."""


def maps(n: int, k: int, seed: int) -> dict[str, torch.Tensor]:
    return {GRID.name: correlated(n, 12, (5, 7), seed), TOKENS.name: 100 * correlated(n, 12, (1, k), seed + 1)}


@pytest.mark.parametrize(
    ("name", "k"), [(name, 1) for name in registry.names("codec")] + [(n, 5) for n in ("hevc", "hyperprior", "strata")]
)
def test_every_codec_codes_tokens_beside_a_map(name: str, k: int) -> None:
    plugin = registry.get("codec", name)
    try:
        plugin.versions()
    except FcbenchError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    drawn, point = maps(32, k, 1), plugin.sweep("mse")[-1]
    codec = plugin.build((GRID, TOKENS), {n: statistics(x) for n, x in drawn.items()}, point)
    codec.prepare(list(drawn.values()))
    if plugin.trained:
        train(codec, drawn, float(point["lmbda"]), 30)
    codec.freeze()
    sent = Features({n: m[:1] for n, m in drawn.items()})
    stream = codec.encode(sent)
    arrived = codec.decode(stream.payload, sent.shapes).features.maps
    for spec in (GRID, TOKENS):
        assert arrived[spec.name].shape == sent.maps[spec.name].shape
        squares = (arrived[spec.name] - sent.maps[spec.name]).square().mean((0, 2, 3)) / drawn[spec.name].var((0, 2, 3))
        assert float(squares.mean()) < 0.5, f"{spec.name} by its own statistics"


def test_the_container_keeps_the_layout(tmp_path: Path) -> None:
    header = Header("raw", "ab" * 32, (GRID, TOKENS))
    with ContainerWriter(tmp_path / "a.fcb", header) as writer:
        writer.append(Bitstream({"y": b"1"}, 1, 1), {GRID.name: (5, 7), TOKENS.name: (1, 5)})
    read = ContainerReader(tmp_path / "a.fcb")
    assert read.header.specs == (GRID, TOKENS) and read[0].shapes[TOKENS.name] == (1, 5)


@pytest.mark.parametrize("neck", registry.names("neck"))
def test_necks_see_tokens_everywhere(neck: str) -> None:
    torch.manual_seed(0)
    shapes = {GRID.name: (5, 7), TOKENS.name: (1, 40)}  # more tokens than places: the grid is still the map's
    module = registry.get("neck", neck).build((GRID, TOKENS), shapes, 32).eval()
    x = maps(2, 40, 3)
    moved = {**x, TOKENS.name: x[TOKENS.name].flip(-1)}
    with torch.no_grad():
        before, after = module(x), module(moved)
    assert before.shape == (2, 32, 5, 7) and float((before - after).abs().mean((0, 1)).min()) > 0


def test_tokens_alone_are_a_map_of_their_own() -> None:
    neck = registry.get("neck", "linear").build((TOKENS,), {TOKENS.name: (1, 5)}, 32)
    assert neck({TOKENS.name: maps(2, 5, 3)[TOKENS.name]}).shape == (2, 32, 1, 5)


@pytest.mark.parametrize(
    ("name", "side", "n_tokens"),
    [
        ("test_vit", 32, 1),
        ("vit_small_patch14_reg4_dinov2", 28, 5),
        ("vit_small_patch16_dinov3", 32, 5),
        ("eva02_tiny_patch14_224", 28, 1),
        ("vit_xsmall_patch16_clip_224", 32, 1),
        ("deit_tiny_distilled_patch16_224", 32, 2),
    ],
)
def test_encoders_send_what_their_blocks_hold(name: str, side: int, n_tokens: int) -> None:
    encoder = build_encoder(f"timm:{name}", "random", torch.device("cpu"))
    image = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    group = encoder.groups["tokens2"]
    assert group == ("block2", "block2" + GLOBAL)
    found = encoder(image, group).maps
    seen: list[torch.Tensor] = []
    handle = encoder.module.get_submodule("model.blocks.1").register_forward_hook(lambda *a: seen.append(a[2]))
    alone = encoder(image, ["block2"]).maps["block2"]
    handle.remove()
    tokens = torch.cat([found["block2" + GLOBAL].flatten(2), found["block2"].flatten(2)], 2)
    assert torch.equal(tokens.transpose(1, 2), seen[0]) and torch.equal(alone, found["block2"])
    assert found["block2" + GLOBAL].shape[2:] == encoder.grid("block2" + GLOBAL, (side, side)) == (1, n_tokens)


def test_siglip_sends_the_tokens_of_its_grid_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    create: Any = timm.create_model
    small: Any = {"depth": 3, "embed_dim": 64, "num_heads": 2}  # its smallest model takes half a minute to draw
    monkeypatch.setattr(timm, "create_model", lambda *args, **how: create(*args, **how, **small))
    encoder = build_encoder("timm:vit_base_patch16_siglip_224", "random", torch.device("cpu"))
    seen: list[torch.Tensor] = []
    encoder.module.get_submodule("model.blocks.1").register_forward_hook(lambda *a: seen.append(a[2]))
    found = encoder(torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8), ["block2"]).maps["block2"]
    assert list(encoder.specs) == ["block1", "block2", "block3"] and not encoder.groups
    assert found.shape[2:] == (2, 3) and torch.equal(found.flatten(2).transpose(1, 2), seen[0])
