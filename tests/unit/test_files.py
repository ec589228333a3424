"""Files that verbs write are whole or not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import fcbench
from fcbench.core.errors import FcbenchError
from fcbench.core.files import atomic_file, write_atomically
from fcbench.reports import style

ROOT = Path(fcbench.__file__).parent
WRITES = re.compile(
    r"""\.write_(text|bytes)\(|\bopen\([^)]*["'][wax]b?\+?["']|\bfdopen\(|\.savefig\((?!buffer)|\bsave_file\("""
    r"""|(?<!table)\.to_(csv|parquet|json)\((?!index=False)|(np|torch)\.save\((?!.*buffer)"""
)
OTHERWISE = {
    "core/files.py": "the atomic writer itself, and appending",
    "features/store.py": "maps of a set, whose index is written last",
    "core/manifest.py": "decoded features that a command reads, in a temporary folder",
    "core/processes.py": "a switch of the system, not a file",
    "coders/vvc.py": "what a program reads, in a temporary folder",
}


@pytest.mark.parametrize("file", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py")))
def test_files_are_written_by_the_atomic_writer_alone(file: str) -> None:
    found = WRITES.findall((ROOT / file).read_text())
    assert file in OTHERWISE or file.startswith("testing/") or not found


def failing(*args: object, **named: object) -> None:
    raise FcbenchError("on purpose")


def test_a_failed_plot_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure()
    monkeypatch.setattr(figure, "savefig", failing)
    with pytest.raises(FcbenchError, match="on purpose"):
        style.save(figure, tmp_path / "curves.png")
    monkeypatch.undo()
    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(FcbenchError, match="on purpose"):
        style.save(figure, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def cut_off(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt


@pytest.mark.parametrize("call", [cut_off, lambda path: write_atomically(path / "below", b"")])
def test_what_fails_leaves_the_old_file(tmp_path: Path, call: Callable[[Path], None]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises((KeyboardInterrupt, FcbenchError)):
        call(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
