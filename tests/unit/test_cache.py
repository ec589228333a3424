"""Kept files: whole or made again, by one process, never another's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from fcbench.core import cache
from fcbench.core.cache import Cache
from fcbench.core.files import write_atomically
from fcbench.measure.ray_caches import Files


def never() -> bytes:
    raise AssertionError("made again")


def test_a_file_is_made_once(tmp_path: Path) -> None:
    assert cache.cached(tmp_path / "models" / "a", lambda: b"first") == b"first"
    assert cache.cached(tmp_path / "models" / "a", never) == b"first"


def test_the_digest_is_what_xxhsum_writes(tmp_path: Path) -> None:
    cache.put(tmp_path / "a", b"contents")
    assert (tmp_path / "a.xxh3").read_text() == f"{xxhash.xxh3_128_hexdigest(b'contents')}  a\n"


def _flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lose_the_digest(path: Path) -> None:
    path.with_name("a.xxh3").unlink()


def _exchange(path: Path) -> None:
    cache.put(path.with_name("b"), b"another")
    path.with_name("b").replace(path)


def _exchange_with_digest(path: Path) -> None:
    cache.put(path.with_name("b"), b"another")
    path.with_name("b").replace(path)
    path.with_name("b.xxh3").replace(path.with_name("a.xxh3"))


@pytest.mark.parametrize("damage", [_flip, _cut, _lose_the_digest, _exchange, _exchange_with_digest])
def test_damage_is_reported_and_repaired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    cache.put(tmp_path / "a", b"contents")
    damage(tmp_path / "a")
    assert cache.get(tmp_path / "a") is None
    assert f"{tmp_path / 'a'} is damaged" in caplog.text
    assert cache.cached(tmp_path / "a", lambda: b"contents") == b"contents"
    assert cache.get(tmp_path / "a") == b"contents"


def test_a_kill_between_file_and_digest_loses_neither_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(tmp_path / "a", b"old")
    write = write_atomically

    def killed(path: Path, data: bytes | str, hint: str) -> None:
        if path.name == "a":
            raise KeyboardInterrupt
        write(path, data, hint)

    monkeypatch.setattr(cache, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.put(tmp_path / "a", b"new")
    assert cache.get(tmp_path / "a") == b"old"
    monkeypatch.undo()
    cache.put(tmp_path / "a", b"new")
    assert cache.get(tmp_path / "a") == b"new"


def test_others_wait_for_the_one_that_makes_it(tmp_path: Path) -> None:
    begun, n_made, found = threading.Event(), [], []

    def make() -> bytes:
        n_made.append(1)
        begun.set()
        threading.Event().wait(0.2)
        return b"once"

    def ask() -> None:
        found.append(cache.cached(tmp_path / "a", make))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads[0].start()
    begun.wait()
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"once"] * 3 and len(n_made) == 1


def test_what_a_killed_process_left_of_a_file_and_of_its_training_is_removed(tmp_path: Path) -> None:
    for name in (".task-1.safetensors.99.tmp", ".task-1.resume.99.tmp", ".task-2.resume.99.tmp"):
        (tmp_path / name).touch()
    with cache.locked(tmp_path / "task-1.safetensors"):
        assert [path.name for path in tmp_path.glob(".*.tmp")] == [".task-2.resume.99.tmp"]


def test_a_damaged_file_of_the_drivers_cache_is_replaced_by_a_machines(tmp_path: Path) -> None:
    here, there = (Cache(tmp_path / name).model("task", "0") for name in ("here", "there"))
    for path in (here, there):
        cache.cached(path, lambda: b"weights")
    files, names = Files(tmp_path / "here"), [f"models/{here.name}{end}" for end in (".xxh3", "", ".made")]
    assert files.lacks(names) == [] and files.read(names[1])[""] == b"weights"
    here.write_bytes(b"damaged")
    assert files.read(names[1]) == {}
    here.write_bytes(b"damaged")
    assert set(files.lacks(names)) == set(names)
    for name in names:
        files.write(name, (tmp_path / "there" / name).read_bytes())
    assert files.lacks(names) == [] and files.read(names[1])[""] == b"weights"
