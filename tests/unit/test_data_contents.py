"""Revisions follow the contents of files, which are read once; sizes of images are known before anything is decoded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import tiny_sets

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset, require_one_size
from fcbench.data.shared import contents
from fcbench.data.shared.contents import Contents

Reads = list[Path]


@pytest.fixture(autouse=True)
def _files_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files had been written long ago."""
    monkeypatch.setattr(contents, "SETTLING_NS", -1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Files whose digests are taken from now on."""
    seen: Reads = []
    real = contents._digest

    def counting(path: Path) -> str | None:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(contents, "_digest", counting)
    return seen


def _open(name: str, root: Path, split: Literal["train", "test"] = "train", **options: Any) -> Dataset:
    return registry.get("dataset", name).open(split, DataOptions(root, root.parent / "cache", **options))


def _relabel(path: Path, keep_time: bool) -> None:
    """Other contents of the same size, in place; the time of modification is set back or a second later."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    mtime_ns = before.st_mtime_ns + (0 if keep_time else 10**9)
    os.utime(path, ns=(before.st_atime_ns, mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)


@pytest.mark.parametrize("keep_time", [False, True], ids=["touched", "time set back"])
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("camvid", "train/masks/train1.png"),
        ("camvid", "train/images/train1.jpg"),
        ("ade20k", "annotations/training/ADE_train_00000002.png"),
        ("rgbd", "train/depth/0001.png"),
        ("folder", "train/owl/1.jpg"),
        ("coco", "train2017/000000000002.jpg"),
        ("coco", "annotations/captions_train2017.json"),
        ("nyuv2", "nyu_depth_v2_labeled.mat"),
    ],
)
def test_a_relabelled_file_of_the_same_size_is_another_revision(
    tmp_path: Path, name: str, part: str, keep_time: bool
) -> None:
    root = tmp_path / "data"
    getattr(tiny_sets, name)(root)
    before = _open(name, root).revision
    if part.endswith(".json"):
        path = root / part
        stat = path.stat()
        path.write_text(path.read_text().replace("Dog 0", "Cat 0"))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_size == stat.st_size
    else:
        _relabel(root / part, keep_time)
    assert _open(name, root).revision != before


@pytest.mark.parametrize("name", ["camvid", "ade20k", "rgbd", "folder", "coco", "nyuv2", "imagenet"])
def test_a_second_opening_reads_no_file(tmp_path: Path, reads: Reads, name: str) -> None:
    root = tmp_path / "data"
    getattr(tiny_sets, name)(root)
    first = [_open(name, root, split).revision for split in ("train", "test")]
    assert reads and len(reads) == len(set(reads))
    reads.clear()
    assert [_open(name, root, split).revision for split in ("train", "test")] == first
    assert not reads


def test_only_what_changed_is_read_again(tmp_path: Path, reads: Reads) -> None:
    root = tmp_path / "data"
    tiny_sets.camvid(root)
    _open("camvid", root)
    reads.clear()
    _relabel(root / "val" / "masks" / "val2.png", keep_time=True)
    _open("camvid", root)
    assert reads == [root / "val" / "masks" / "val2.png"]


def test_a_revision_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    """A copy elsewhere, with other times and inodes, is the same data."""
    for home in ("a", "b"):
        tiny_sets.camvid(tmp_path / home / "data")
    one, other = (_open("camvid", tmp_path / home / "data").revision for home in ("a", "b"))
    assert one == other
    path = tmp_path / "b" / "data" / "val" / "images" / "val0.jpg"
    path.rename(path.with_name("val7.jpg"))
    mask = path.parents[1] / "masks" / "val0.png"
    mask.rename(mask.with_name("val7.png"))
    assert _open("camvid", tmp_path / "b" / "data").revision != one


def test_what_changed_a_moment_ago_is_read_again(tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further change within one tick of the file system's clock would leave size, times and inode as they are."""
    monkeypatch.setattr(contents, "SETTLING_NS", 3600 * 10**9)
    root = tmp_path / "data"
    tiny_sets.folder(root)
    for _ in range(2):
        reads.clear()
        _open("folder", root)
        assert len(reads) == 9


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [_cut, _empty, Path.unlink])
def test_a_damaged_index_is_made_again(tmp_path: Path, reads: Reads, harm: Callable[[Path], None]) -> None:
    root = tmp_path / "data"
    tiny_sets.camvid(root)
    before = _open("camvid", root).revision
    for path in (tmp_path / "cache" / "files").glob("*.json"):
        harm(path)
    reads.clear()
    assert _open("camvid", root).revision == before and len(reads) == 12
    reads.clear()
    assert _open("camvid", root).revision == before and not reads


def test_a_kill_while_an_index_is_written_leaves_the_old_one(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, files = tmp_path / "data", tmp_path / "cache" / "files"
    tiny_sets.camvid(root)
    _open("camvid", root)
    before = {p.name: p.read_bytes() for p in files.glob("*.json")}
    _relabel(root / "train" / "masks" / "train1.png", keep_time=False)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            _open("camvid", root)
    assert {p.name: p.read_bytes() for p in files.glob("*.json")} == before
    reads.clear()
    _open("camvid", root)
    assert reads == [root / "train" / "masks" / "train1.png"]


def test_an_interrupted_reading_goes_on_at_the_last_block(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_BLOCK", 2)
    root = tmp_path / "data"
    for i in range(9):
        tiny_sets.picture(root / f"{i}.png", i)
    paths = [root / f"{i}.png" for i in range(9)]
    real = contents._digest

    def fails(path: Path) -> str | None:
        if path.name == "5.png":
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(contents, "_digest", fails)
        with pytest.raises(KeyboardInterrupt):
            Contents(root, tmp_path / "cache").revision(paths)
    reads.clear()
    Contents(root, tmp_path / "cache").revision(paths)
    assert sorted(p.name for p in reads) == [f"{i}.png" for i in range(4, 9)]


def test_a_file_that_cannot_be_read_is_left_to_whoever_needs_it(tmp_path: Path, reads: Reads) -> None:
    """The revision is another one once it can be read; a pipe does not make the reader wait."""
    good = tmp_path / "good.png"
    tiny_sets.picture(good, 1)
    os.mkfifo(tmp_path / "bad.png")
    files = Contents(tmp_path, tmp_path / "cache")
    before = files.revision([good, tmp_path / "bad.png"])
    (tmp_path / "bad.png").unlink()
    tiny_sets.picture(tmp_path / "bad.png", 1)
    assert files.revision([good, tmp_path / "bad.png"]) != before
    with pytest.raises(FcbenchError, match="cannot read .*gone.png: No such file"):
        files.revision([tmp_path / "gone.png"])


def test_the_index_is_plain_and_relative_to_nothing_but_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    tiny_sets.folder(root, n=1)
    data = _open("folder", root)
    data.sizes()
    index = json.loads(next((tmp_path / "cache" / "files").glob("*.json")).read_bytes())
    (entry,) = index.values()
    assert set(entry) == {"status", "xxh3", "size_px"} and entry["size_px"] == list(tiny_sets.SIZE)


# --------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("camvid", "val/images/val1.jpg"),
        ("ade20k", "images/training/ADE_train_00000002.jpg"),
        ("rgbd", "train/rgb/0001.jpg"),
        ("folder", "train/owl/1.jpg"),
        ("imagenet", f"train/{tiny_sets.SYNSETS[2]}/{tiny_sets.SYNSETS[2]}_1.JPEG"),
    ],
)
def test_images_of_several_sizes_are_found_without_decoding_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, part: str
) -> None:
    root = tmp_path / "data"
    getattr(tiny_sets, name)(root)
    require_one_size(_open(name, root), _open(name, root, "test"))
    tiny_sets.picture(root / part, 1, (25, 31))
    monkeypatch.setattr("fcbench.data.shared.images._rgb", None)
    with pytest.raises(FcbenchError, match=f"{part} is 25x31.*2 sizes in all: give --image-size|{part} is 25x31"):
        require_one_size(_open(name, root), _open(name, root, "test"))
    require_one_size(_open(name, root, image_size_px=(20, 30)))


def test_splits_of_two_sizes_do_not_fit(tmp_path: Path) -> None:
    root = tmp_path / "data"
    tiny_sets.folder(root)
    for path in (root / "test").rglob("*.jpg"):
        tiny_sets.picture(path, 7, (40, 30))
    train, test = _open("folder", root), _open("folder", root, "test")
    require_one_size(train)
    require_one_size(test)
    with pytest.raises(FcbenchError, match="train/.*is 20x30, test/.*is 40x30, 2 sizes in all"):
        require_one_size(train, test)


def test_sizes_of_coco_are_those_of_its_annotations(tmp_path: Path) -> None:
    tiny_sets.coco(tmp_path / "data")
    path = tmp_path / "data" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][3]["width"] = 31
    content["annotations"] = []  # a run-length code of the old size would be refused first
    path.write_text(json.dumps(content))
    with pytest.raises(FcbenchError, match="train2017/000000000003.jpg is 20x31"):
        require_one_size(_open("coco", tmp_path / "data"))


def test_an_unreadable_image_has_no_size_but_stops_nobody(tmp_path: Path) -> None:
    root = tmp_path / "data"
    tiny_sets.folder(root)
    (root / "train" / "owl" / "1.jpg").write_bytes(b"nothing")
    data = _open("folder", root)
    assert len(data.sizes()) == len(data) - 1
    require_one_size(data)
