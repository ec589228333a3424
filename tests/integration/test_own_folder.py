"""A folder of one's own through the command line: each task alone and several together."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from refusals import refused

from fcbench.results import table

Tiny = Callable[..., Result]
OPTIONS = "--dataset folder --encoder timm:test_resnet --weights random --codec uniform --split-point stage3".split()
TASKS = ("segmentation", "depth", "pose", "captioning", "classification")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six images of 48 x 64 pixels per split, with targets of every task; birds have four keypoints."""
    sets = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "tiny_sets.py"))
    sets["folder_of_all"](tmp_path / "data", size=(48, 64))
    return tmp_path / "data"


def _alone(root: Path, task: str) -> None:
    """Leave the targets of one task."""
    sources = {"segmentation": "masks", "depth": "depth", "pose": "birds.json", "captioning": "texts.json"}
    for split in ("train", "test"):
        for other in sources.keys() - {task}:
            path = root / split / sources[other]
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_all_tasks_in_one_run(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", *OPTIONS, "--data-root", root, *(a for t in TASKS for a in ("--task", t)))
    assert result.exit_code == 0, result.output
    rows = table.load(tmp_path / "out").query("kind == 'coded' and primary")
    assert set(rows.task) == set(TASKS) and set(rows.n_samples) == {6}
    assert np.isfinite(rows.value).all()


@pytest.mark.parametrize("task", TASKS)
def test_each_task_alone(tiny: Tiny, root: Path, tmp_path: Path, task: str) -> None:
    _alone(root, task)
    result = tiny(tmp_path / "out", *OPTIONS, "--data-root", root, "--task", task, "--image-size", "32")
    assert result.exit_code == 0, result.output
    rows = table.load(tmp_path / "out")
    assert set(rows.task) == {task} and set(rows.n_px) == {6 * 48 * 64}


def test_keypoints_as_labels(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    """The task's own output of four keypoints is coded and decoded."""
    options = [*OPTIONS[:-4], "--codec", "label", *OPTIONS[-2:]]
    result = tiny(tmp_path / "out", *options, "--data-root", root, "--task", "pose")
    assert result.exit_code == 0, result.output
    assert (table.load(tmp_path / "out").query("kind == 'coded' or kind == 'label'").n_bytes > 0).all()


def test_a_task_without_targets_shows_the_layout(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "test" / "depth")
    line = refused(tiny(tmp_path / "out", *OPTIONS, "--data-root", root, "--task", "depth"))
    assert "test holds no targets for depth: expected depth/. Expected: ROOT/" in line


def test_frozen_decoders_of_people_refuse_birds(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    options = [*OPTIONS, "--data-root", root, "--task", "pose", "--head", "frozen", "--task-model", "pose=nano_pose"]
    assert "4 keypoints that are not COCO's" in refused(tiny(tmp_path / "out", *options))
