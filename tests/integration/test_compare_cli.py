"""`fcbench compare` on the command line: a real folder to each format, and one line for bad input."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from refusals import refused

Run = Callable[..., Result]


def test_every_codec_task_and_metric_is_there_with_intervals(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.csv"
    result = fcbench("compare", finished, "--anchor", "uniform", "--metric", "all", "-o", out)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(out.open()))
    assert {(r["task"], r["metric"], r["codec"]) for r in rows} == {
        (task, metric, codec)
        for task, metrics in (("segmentation", ("miou", "pixel_accuracy")), ("captioning", ("cider", "bleu4")))
        for metric in metrics
        for codec in ("uniform", "hyperprior")
    }
    for row in rows:
        figure = bool(row["bd_rate_percent"])
        assert figure != bool(row["bd_rate_percent_reason"])
        assert not figure or row["codec"] != "uniform" or float(row["bd_rate_percent"]) == 0
    with_interval = [r for r in rows if r["bd_rate_percent_low"]]
    assert with_interval
    for row in with_interval:
        if row["codec"] == "uniform":
            assert float(row["bd_rate_percent_low"]) == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ((), "BD-rate (%)"),
        (("--format", "markdown"), "| codec | points |"),
        (("--format", "latex"), r"\toprule"),
        (("--format", "csv"), "bd_accuracy_reason"),
    ],
)
def test_formats(fcbench: Run, finished: Path, options: tuple[str, ...], part: str) -> None:
    result = fcbench("compare", finished, "--anchor", "hyperprior", *options)
    assert result.exit_code == 0, result.output
    assert part in result.output and "hyperprior" in result.output


@pytest.mark.parametrize("suffix", [".md", ".tex", ".txt", ".json"])
def test_format_by_suffix_is_what_the_option_gives(fcbench: Run, finished: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    assert fcbench("compare", finished, "--anchor", "uniform", "-o", out).exit_code == 0
    option = {".md": "markdown", ".tex": "latex", ".txt": "table"}.get(suffix)
    options = ("--format", option) if option else ("--json",)
    printed = fcbench("compare", finished, "--anchor", "uniform", *options)
    assert printed.output == out.read_text()
    if suffix == ".json":
        assert json.loads(out.read_text())["comparisons"]


def test_bad_input_is_one_line(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    for arguments, part in (
        ((finished, "--anchor", "uniforn"), "Did you mean 'uniform'"),
        ((finished, "--anchor", "uniform", "--metric", "mio"), "unknown metric"),
        ((finished, "--anchor", "uniform", "-o", tmp_path / "a.xls"), "'a.xls'"),
        ((finished, "--anchor", "uniform", "-o", finished / "rates.csv" / "a.md"), "choose another -o"),
        ((finished, "--anchor", "uniform", "--json", "--format", "csv"), "give one"),
        ((tmp_path, "--anchor", "uniform"), "no rates.csv"),
    ):
        assert part in refused(fcbench("compare", *arguments))
    assert fcbench("compare", finished).exit_code == 2


def test_two_revisions_of_the_data_are_refused(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns(".lock", "streams"))
    file = other / "rates.csv"
    file.write_text(file.read_text().replace('"scenes","v1"', '"scenes","v0"'))
    line = refused(fcbench("compare", finished, other, "--anchor", "uniform"))
    assert "dataset_revision" in line and "v0" in line


def test_points_written_by_curves_are_an_anchor_of_compare_plot_and_report(
    fcbench: Run, finished: Path, tmp_path: Path
) -> None:
    points = tmp_path / "points.csv"
    assert fcbench("curves", finished, "-o", points).exit_code == 0
    table, picture, page = (tmp_path / name for name in ("a.csv", "a.svg", "a.html"))
    anchor = "hyperprior (published)"
    for arguments in (
        ("compare", finished, "--anchor", anchor, "--published", points, "-o", table),
        ("plot", finished, "--published", points, "-o", picture),
        ("report", finished, "--published", points, "-o", page),
    ):
        result = fcbench(*arguments)
        assert result.exit_code == 0, result.output
    rows = [r for r in csv.DictReader(table.open()) if r["codec"] == "hyperprior"]
    assert rows and {r["anchor"] for r in rows} == {anchor}
    assert all(abs(float(r["bd_accuracy"])) < 1e-9 for r in rows if r["bd_accuracy"])
    assert anchor in page.read_text()


def test_compressai_files_are_written_a_curve_each(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    assert fcbench("curves", finished, "--compressai", tmp_path).exit_code == 0
    assert {f.name.split("-")[-2] for f in tmp_path.iterdir()} == {"segmentation", "captioning"}
    assert all(len(json.loads(f.read_text())["results"]["bpp"]) for f in tmp_path.iterdir())


def test_published_curves_need_an_anchor_and_one_set(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    assert fcbench("curves", finished, "-o", points).exit_code == 0
    result = fcbench("compare", finished, "--by", "folder", "--published", points)
    assert result.exit_code == 2 and "--published needs --anchor" in result.output
    result = fcbench("report", finished, "--each", "--published", points, "-o", tmp_path / "a.html")
    assert result.exit_code == 1 and "--each with --published" in result.output
