"""What a verb writes never replaces what it reads, and replaces nothing without being asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from refusals import refused

Run = Callable[..., Result]


@pytest.fixture
def here(finished: Path, tmp_path: Path) -> Path:
    """A stream, its checkpoint, a results folder, and a folder with an image."""
    checkpoint = sorted((finished / "streams").glob("*.safetensors"))[0]
    shutil.copy(checkpoint, tmp_path / "z.safetensors")
    shutil.copy(checkpoint.with_suffix(".fcb"), tmp_path / "z.fcb")
    shutil.copytree(finished, tmp_path / "results", ignore=shutil.ignore_patterns(".lock", "streams"))
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "images" / "z.png")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ENCODE = "encode", "images", "--checkpoint", "z.safetensors", "--weights", "random", "--device", "cpu", "-o"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ("decode", "z.fcb", "-o", "z.safetensors"),
        ("decode", "z.fcb", "-o", "z.fcb"),
        ("decode", "z.fcb", "--checkpoint", "link", "-o", "z.safetensors"),
        ("decode", "z.fcb", "--checkpoint", "z.safetensors", "-o", "link"),
        (*ENCODE, "z.safetensors"),
        (*ENCODE, "images/z.png"),
        ("encode", "images/z.png", *ENCODE[2:], "images/z.png"),
        ("compare", "results", "--anchor", "uniform", "-o", "results/rates.csv"),
        ("compare", "results", "--anchor", "uniform", "-o", "results/provenance.json"),
    ],
    ids=" ".join,
)
def test_no_input_is_overwritten(
    fcbench: Run, here: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], overwrite: bool
) -> None:
    os.symlink("z.safetensors", here / "link")
    monkeypatch.chdir(here)
    before = contents(here)
    line = refused(fcbench(*command, *(["--overwrite"] if overwrite else [])))
    assert "is an input: choose another -o" in line
    assert contents(here) == before


@pytest.mark.parametrize(
    "command",
    [
        ("decode", "z.fcb", "-o", "there"),
        (*ENCODE, "there"),
        ("compare", "results", "--anchor", "uniform", "-o", "there.md"),
        ("plot", "results", "-o", "there.png"),
        ("cost", "results", "--general", "hiera_nano", "--special", "sam2_nano", "-o", "there.md"),
    ],
    ids=" ".join,
)
def test_an_output_that_exists_needs_overwrite(
    fcbench: Run, here: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(here)
    Path(command[-1]).write_text("mine")
    assert "--overwrite" in refused(fcbench(*command))
    assert Path(command[-1]).read_text() == "mine"
    if command[0] != "cost":  # which lacks a second encoder
        result = fcbench(*command, "--overwrite")
        assert result.exit_code == 0, result.output
        assert Path(command[-1]).read_bytes() != b"mine"


def test_figures_and_tables_in_a_results_folder_are_replaced(
    fcbench: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    for _ in range(2):
        assert fcbench("compare", "results", "--anchor", "uniform", "-o", "results/table.md").exit_code == 0
        assert fcbench("plot", "results", "-o", "results/curves.png").exit_code == 0


def test_a_folder_is_no_output(fcbench: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    assert "images is a folder: give a file" in refused(fcbench("decode", "z.fcb", "-o", "images"))


def test_features_are_not_written_where_a_checkpoint_is_looked_for(
    fcbench: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    before = contents(here)
    Path("z.safetensors").rename("away")
    line = refused(fcbench("decode", "z.fcb", "--checkpoint", "away", "-o", "z.safetensors"))
    assert "z.safetensors would be taken for the checkpoint of z.fcb: choose another -o" in line
    Path("away").rename("z.safetensors")
    assert contents(here) == before
