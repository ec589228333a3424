"""Split points by name: one, several with plus signs, a group of the encoder's; several are coded as one sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from refusals import refused

from fcbench.results import table
from fcbench.transmit import container

Tiny = Callable[..., Result]
POINTS = {"stage2": 64 * 16 * 16, "stage3": 128 * 8 * 8}


@pytest.mark.parametrize("codec", ["uniform", "hyperprior"])
def test_several_maps_are_one_sample(tiny: Tiny, tmp_path: Path, codec: str) -> None:
    out = tmp_path / "out"
    options = ("--task", "segmentation", "--codec", codec, "--neck", "linear", "--keep-streams")
    result = tiny(out, *options, "--split-point", "stage3+stage2")
    assert result.exit_code == 0, result.output
    df = table.load(out)
    assert set(df.n_points) == {8 * sum(POINTS.values())}
    path, *_ = (out / "streams").glob("*.fcb")
    reader = container.ContainerReader(path)
    assert [s.name for s in reader.header.specs] == ["stage2", "stage3"]  # fine first
    assert len(reader) == 8


def test_a_group_names_several(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--task", "segmentation", "--codec", "uniform", "--neck", "linear", "--split-point", "trunk")
    result = tiny(out, *options)
    assert result.exit_code == 0, result.output
    whole = sum(POINTS.values()) + 32 * 32 * 32 + 256 * 4 * 4
    assert set(table.load(out).n_points) == {8 * whole}


def test_unknown_split_points_name_the_nearest(tiny: Tiny, tmp_path: Path) -> None:
    line = refused(tiny(tmp_path / "out", "--split-point", "stage2+stag3"))
    assert "'stage3'" in line and "trunk" in line
