"""Rendered scenes on disk: whole or absent, and made again when damaged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset

SIZE_PX = (32, 32)


def _open(cache: Path, limit: int = 100) -> Dataset:
    return registry.get("dataset", "scenes").open("train", DataOptions(None, cache, SIZE_PX, limit))


def _folder(cache: Path) -> Path:
    (found,) = cache.glob("scenes-*/32x32/train")
    return found


def _seen(data: Dataset) -> list[np.ndarray]:
    """All of a few scenes."""
    out = []
    for i in (0, 50, 99):
        targets = data.targets(i)
        out += [data[i].image.numpy(), targets["segmentation"], targets["depth"], targets["pose"].keypoints]
        out += [np.array(targets["captioning"])]
    return out


def _flip(name: str) -> Callable[[Path], None]:
    """Flip one bit in the middle of a file."""

    def harm(chunk: Path) -> None:
        content = bytearray((chunk / name).read_bytes())
        content[len(content) // 2] ^= 1
        (chunk / name).write_bytes(content)

    return harm


def _cut(chunk: Path) -> None:
    (chunk / "depth.npy").write_bytes((chunk / "depth.npy").read_bytes()[:1000])


HARMS: dict[str, Callable[[Path], object]] = {
    "mask": _flip("segmentation.npy"),
    "image": _flip("image.npy"),
    "words": _flip("words.json"),
    "cut": _cut,
    "digest": _flip("depth.npy.xxh3"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_damaged_scenes_are_said_and_made_again(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    before = _seen(_open(tmp_path))
    HARMS[harm](_folder(tmp_path) / "00000")
    with caplog.at_level(logging.WARNING):
        after = _seen(_open(tmp_path))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    (record,) = caplog.records
    assert "is damaged: making it again" in record.getMessage()


def test_whole_scenes_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _seen(_open(tmp_path))
    monkeypatch.setattr("fcbench.data.scenes.chunks.render", None)
    assert all(np.array_equal(a, b) for a, b in zip(first, _seen(_open(tmp_path)), strict=True))


@pytest.mark.parametrize("lost", ["image.npy", "depth.npy.xxh3"])
def test_scenes_without_a_file_or_a_digest_are_made_again(tmp_path: Path, lost: str) -> None:
    first = _seen(_open(tmp_path))
    (_folder(tmp_path) / "00000" / lost).unlink()
    _flip("depth.npy")(_folder(tmp_path) / "00000")
    assert all(np.array_equal(a, b) for a, b in zip(first, _seen(_open(tmp_path)), strict=True))


def test_what_a_killed_process_left_half_made_is_removed(tmp_path: Path) -> None:
    _open(tmp_path)
    (_folder(tmp_path) / ".part-gone").mkdir()
    _open(tmp_path, limit=200)
    assert sorted(p.name for p in _folder(tmp_path).iterdir() if p.is_dir()) == ["00000", "00001"]


def test_workers_render_the_same_scenes(tmp_path: Path) -> None:
    many, one = _open(tmp_path / "a", limit=200), _open(tmp_path / "b")
    assert torch.equal(many[99].image, one[99].image)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "scenes-v1").write_text("in the way")
    with pytest.raises(FcbenchError, match="cannot use .*give another --cache-dir"):
        _open(tmp_path)


def test_targets_that_nobody_asked_for_are_not_made(tmp_path: Path) -> None:
    data: Any = _open(tmp_path, 1)
    arrays, words = data._stored.open(0)
    data._chunks[0] = {"depth": arrays["depth"]}, words  # no masks to read
    targets = data.targets(0)
    assert targets["depth"].shape == SIZE_PX and set(targets) == set(data.tasks)
    with pytest.raises(KeyError, match="segmentation"):
        targets["segmentation"]
