"""What a cache holds: kinds and sizes, what is stale and why, damage, and what pruning removes and leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from fcbench.cli.main import main
from fcbench.core import cache, cache_entries, libraries
from fcbench.core.cache import Cache, cached, locked, put
from fcbench.core.errors import FcbenchError
from fcbench.features.encoding import build_encoder
from fcbench.features.extract import describe, extract
from fcbench.features.store import key_of
from fcbench.testing.fake_data import FakeDataset
from fcbench.training.convergence import Gain, Record
from fcbench.training.records import keep

CPU = torch.device("cpu")
HEX = "0123456789abcdef0123"
Doctor = Callable[..., Result]


@pytest.fixture()
def home(tmp_path: Path) -> Cache:
    """A cache with a feature set (oldest), a readout and a codec (newest), and a file that is not its own."""
    home = Cache(tmp_path / "cache").make()
    extract(FakeDataset(3), build_encoder("hiera_nano", None, CPU), ["stage3"], home)
    cached(home.model("task", HEX), lambda: b"t" * 1000)
    keep(home.model("codec", HEX), Record(3, 0.5, "cap", Gain(0.1, 0.2), ()))
    cached(home.model("codec", HEX), lambda: b"c" * 500)
    put(home.root / "files" / f"{HEX}.json", b"{}")
    (home.models / "notes.txt").write_text("mine")
    for age, entry in enumerate(("files", "codec", "task", "features")):
        for e in cache_entries.entries(home.root):
            if e.kind == entry:
                for file in e.files:
                    os.utime(file, (1e9 - age, 1e9 - age))
    return home


@pytest.fixture()
def doctor(home: Cache) -> Doctor:
    return lambda *args: CliRunner().invoke(main, ["doctor", "--cache-dir", str(home.root), *args])


def kinds(home: Cache) -> list[str]:
    return [e.kind for e in cache_entries.entries(home.root)]


def stale(home: Cache) -> dict[str, tuple[str, ...]]:
    return {e.kind: e.stale for e in cache_entries.entries(home.root) if e.stale}


def test_entries_are_of_a_kind_oldest_first_and_count_all_their_bytes(home: Cache) -> None:
    assert kinds(home) == ["features", "task", "codec", "files", "other"]
    sizes = {e.kind: e.n_bytes for e in cache_entries.entries(home.root)}
    folder = next(home.features.glob("*/*[0-9]"))
    assert sizes["features"] == sum(f.stat().st_size for f in folder.iterdir() if f.suffix != ".lock")
    task = home.model("task", HEX)
    assert sizes["task"] == sum(f.stat().st_size for f in home.models.glob(f"{task.name}*") if f.suffix != ".lock")
    assert stale(home) == {}


@pytest.mark.parametrize("name", ["torch", "sam2"])
def test_another_version_of_a_library_makes_features_stale_and_gives_another_key(
    home: Cache, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    key = key_of(describe(FakeDataset(3), build_encoder("hiera_nano", None, CPU), ["stage3"]))
    assert (home.features / key).is_dir()
    real = libraries.version
    then = real(name)
    monkeypatch.setattr(libraries, "version", lambda n: "99" if n == name else real(n))
    assert key != key_of(describe(FakeDataset(3), build_encoder("hiera_nano", None, CPU), ["stage3"]))
    assert stale(home) == dict.fromkeys(["features", "task", "codec"], (f"{name} {then}",))


def test_a_library_that_the_encoder_does_not_use_keeps_its_features(
    home: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, then = libraries.version, libraries.version("timm")
    monkeypatch.setattr(libraries, "version", lambda n: "99" if n == "timm" else real(n))
    assert stale(home) == dict.fromkeys(["task", "codec"], (f"timm {then}",))


def test_other_code_of_an_encoder_makes_its_features_stale(home: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = libraries._hash_of
    monkeypatch.setattr(libraries, "_hash_of", lambda f: "0" if f.stem == "padded" else real(f))
    assert stale(home) == {"features": ("fcbench.encoders.shared.padded",)}


def test_builds_of_one_release_share_a_cache() -> None:
    assert "+" not in libraries.version("torch") and torch.__version__.startswith(libraries.version("torch"))


def test_code_in_another_arithmetic_holds_that_of_the_encoder_itself() -> None:
    plain, reduced = (libraries.code_of(build_encoder(f"hiera_nano{end}", None, CPU)) for end in ("", "@bfloat16"))
    assert set(reduced) - set(plain) == {"fcbench.features.encoding"} and set(plain) < set(reduced)
    assert {"torch", "sam2", "fcbench.encoders.shared.nano", "fcbench.encoders.shared.nano"} < set(plain)


def test_what_an_older_version_made_is_stale(home: Cache) -> None:
    home.model("codec", HEX).with_suffix(".safetensors.made").unlink()
    index = next(home.features.glob("*/*/index.json"))
    found = json.loads(index.read_text())
    del found["key"]["code"]
    put(index, json.dumps(found).encode())
    assert stale(home) == dict.fromkeys(["features", "codec"], ("an older fcbench",))


def test_a_set_without_shards_is_of_an_older_version(home: Cache) -> None:
    shard = next(home.features.glob("*/*[0-9]"))
    for file in shard.iterdir():
        file.rename(shard.parent / file.name)
    shard.rmdir()
    assert stale(home) == {"features": ("an older fcbench",)}


@pytest.mark.parametrize(
    ("flipped", "removed"),
    [
        ("features/*/*/stage3.npy", "features/*/*/stage3.npy"),
        ("features/*/*/index.json", "features/*/*/index.json"),
        ("models/task-*.safetensors", "models/task-*.safetensors"),
        ("models/codec-*.safetensors", "models/codec-*.safetensors"),
        ("models/codec-*.training", "models/codec-*.safetensors"),
    ],
)
def test_verifying_finds_and_removes_what_is_damaged(home: Cache, doctor: Doctor, flipped: str, removed: str) -> None:
    assert doctor("--verify-cache").exit_code == 0
    (file,), (gone,) = home.root.glob(flipped), home.root.glob(removed)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = doctor("--verify-cache")
    assert result.exit_code == 1 and "1 damaged and removed" in result.output and str(gone) in result.output
    assert not gone.exists() and not file.exists() and doctor("--verify-cache").exit_code == 0


def test_features_that_were_damaged_are_made_again(home: Cache, doctor: Doctor) -> None:
    array = next(home.features.glob("*/*/stage3.npy"))
    array.write_bytes(array.read_bytes()[:-1])
    assert doctor("--verify-cache").exit_code == 1
    made = extract(FakeDataset(3), build_encoder("hiera_nano", None, CPU), ["stage3"], home)
    assert len(made) == 3 and array.exists()


def test_the_list_says_kinds_sizes_and_what_is_stale(home: Cache, doctor: Doctor) -> None:
    home.model("codec", HEX).with_suffix(".safetensors.made").unlink()
    shown = doctor("--cache").output
    assert "shards of feature sets" in shown and "stale: 1, 0.0 MB (an older fcbench)" in shown
    found = json.loads(doctor("--cache", "--json").output)
    assert [e["kind"] for e in found["entries"]] == kinds(home) and found["removed"] == []


def test_pruning_removes_what_is_stale_and_nothing_else(home: Cache, doctor: Doctor) -> None:
    assert "removed 0 entries" in doctor("--prune").output
    home.model("task", HEX).with_suffix(".safetensors.made").unlink()
    assert "removed 1 entries" in doctor("--prune").output
    assert kinds(home) == ["features", "codec", "files", "other"]
    assert cache.get(home.model("task", HEX)) is None and cache.get(home.model("codec", HEX)) == b"c" * 500


def test_pruning_to_a_size_takes_the_oldest_first(home: Cache, doctor: Doctor) -> None:
    left = {e.kind: e.n_bytes for e in cache_entries.entries(home.root)}
    limit = left["codec"] + left["files"] + left["other"]
    assert doctor("--prune", f"{limit}B").exit_code == 0
    assert kinds(home) == ["codec", "files", "other"]
    assert doctor("--prune", "0").exit_code == 0
    assert kinds(home) == ["other"] and (home.models / "notes.txt").exists()


def test_what_another_process_is_making_stays(home: Cache, doctor: Doctor) -> None:
    with locked(home.model("task", HEX)):
        assert "1 in use and kept" in doctor("--prune", "0").output
    assert kinds(home) == ["task", "other"]


def test_a_training_under_way_keeps_its_checkpoint(home: Cache, doctor: Doctor) -> None:
    training = home.models / f"codec-{HEX[::-1]}.safetensors"
    unfinished = training.with_name(f".{training.stem}.resume.7.tmp")
    put(training.with_suffix(".resume"), b"r")
    with locked(training):
        unfinished.write_bytes(b"u")
        assert "1 in use and kept" in doctor("--prune", "0").output
        assert unfinished.exists() and kinds(home) == ["other", "resume"]
    assert doctor("--prune", "0").exit_code == 0 and kinds(home) == ["other"]


def test_statistics_are_listed_verified_and_as_stale_as_their_shards(home: Cache, doctor: Doctor) -> None:
    folder = next(home.features.glob("*"))
    for name in ("stats", f"stats-{HEX}"):
        cached(folder / f"{name}.safetensors", lambda: b"s" * 100)
    assert kinds(home).count("stats") == 2 and stale(home) == {}
    (folder / "stats.safetensors").write_bytes(b"damaged")
    assert "1 damaged and removed" in doctor("--verify-cache").output and kinds(home).count("stats") == 1
    index = folder / "00000000" / "index.json"
    found = json.loads(index.read_text())
    del found["key"]["code"]
    put(index, json.dumps(found).encode())
    assert stale(home) == dict.fromkeys(["features", "stats"], ("an older fcbench",))


def test_a_folder_that_is_no_cache_loses_nothing(tmp_path: Path) -> None:
    for name in ("features/login/page.py", "models/user-1.json", "files/a.json", "scenes-v1/mine/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert CliRunner().invoke(main, ["doctor", "--cache-dir", str(tmp_path), "--prune", "0"]).exit_code == 0
    assert set(before) <= set(tmp_path.rglob("*"))
    assert CliRunner().invoke(main, ["doctor", "--cache-dir", str(tmp_path / "none"), "--cache"]).exit_code == 0


@pytest.mark.parametrize("text", ["", "all", "-1", "1e9", "10 XB", "9" * 30, "²"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(FcbenchError, match="is not a size: give for example"):
        cache_entries.n_bytes_of(text)
