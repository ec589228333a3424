"""`fcbench reproduce paper`: the whole path on a few scenes, its files, its resumption, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from fcbench.cli.main import main
from fcbench.training import loop

PAPER = (
    "reproduce paper --device cpu --threads 1 --image-size 64 --n-train 12 --n-test 6 --task-steps 2 --batch 4 "
    "--tasks depth,segmentation"
).split()


def reproduce(*more: str | Path) -> Result:
    return CliRunner().invoke(main, [*PAPER, *map(str, more)])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_tables_of_the_embedded_encoders(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "--layers", "2", "--cache-dir", cache, "--out", tmp_path
    done = reproduce(*where)
    assert done.exit_code == 0, done.output
    cells = pd.read_csv(tmp_path / "tables.csv").fillna("")
    assert len(cells) == 2 * 2 * 6 and set(cells["neck_loss"]) == {"task", "both"}
    assert set(cells["neck_of"]) == {"", "depth", "segmentation"} and (cells["stop"] == "steps").all()
    assert (cells["of_general"][cells["encoder"] == "hiera_nano"] == 1).all()
    assert r"\bottomrule" in (tmp_path / "tables.tex").read_text()
    assert "Findings about them need not hold" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "necks.png").read_bytes().startswith(b"\x89PNG")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(loop, "optimize", never)
    assert reproduce(*where).exit_code == 0
    plan = reproduce(*where, "--plan")
    assert plan.exit_code == 0 and "neck_2L-distilled      12    12" in plan.output, plan.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--encoders hiera_nano", "got 1: hiera_nano"),
        ("--encoders hiera_nano,sam3", "unknown encoder 'sam3'"),
        ("--encoders hiera:tinny,sam2:tiny --plan", "tinny"),
        ("--dataset coco --tasks pose,captioning", "--data-root"),
        ("--dataset coco --tasks pose,captioning --plan", "hiera_nano: 8.1 MB as float32, embedded"),
        ("--dataset coco --data-root nowhere --tasks pose,captioning", "nowhere"),
        ("--layers 3", "neck_3L"),
        ("--layers two", "not a list of numbers"),
        ("--tasks depth", "at least two tasks"),
    ],
)
def test_refusals(more: str, words: str, cache: Path, tmp_path: Path) -> None:
    done = reproduce(*more.split(), "--cache-dir", cache, "--out", tmp_path / "out")
    assert done.exit_code != 0 and words in done.output.replace("\n", " "), done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_whole_path_on_random_weights_of_the_tiny_variants(cache: Path, tmp_path: Path) -> None:
    """All depths of the paper, in two processes."""
    more = "--encoders", "hiera:tiny,sam2:tiny", "--weights", "random", "--jobs", "2"
    done = reproduce(*more, "--cache-dir", cache, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    cells = pd.read_csv(tmp_path / "tables.csv")
    assert len(cells) == 3 * 2 * 2 * 6 and set(cells["layers"]) == {2, 4, 6}
    assert cells["of_general"].notna().all() and cells["of_general_low"].notna().all()
    assert "Random weights" in (tmp_path / "tables.md").read_text()
