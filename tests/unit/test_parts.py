"""Rates taken apart: shares of files, what a rate at a target consists of, and how both are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from points import end, rate_point, sweep, to_frame

from fcbench.analysis import parts, situations, verify
from fcbench.analysis.compare import compare
from fcbench.cli.main import main
from fcbench.core import rates
from fcbench.core.errors import FcbenchError
from fcbench.reports import parts as shown
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable

SAMPLES = SampleTable(list("abcd"), [200] * 4, np.ones((4, 3)))


def two_codecs() -> list[RatePoint]:
    """Curves of a codec with a hyper-latent and of one without; shares of the first change with the rate."""
    with_z = [
        replace(p, parts=json.dumps({"z": 10 * i, "y": 80 - 10 * i, "container": 20}))
        for i, p in enumerate(sweep(5, "a"))
    ]
    return [*with_z, *sweep(5, "b", codec="strata", parts='{"y0": 50, "y1": 50}'), end("ceiling", 0.35)]


def test_content_is_what_is_neither_container_nor_headers() -> None:
    assert rates.bpp_content(100, {"y": 60, "headers": 30, "container": 10}, 160) == 3.0
    assert rates.bpp_content(100, {"y": 100}, 160) == rates.bpp(100, 160)


def test_shares_sum_to_one_and_old_rows_are_refused() -> None:
    found = parts.shares(to_frame(two_codecs()))
    assert len(found) == 10 and all(sum(one.values()) == pytest.approx(1) for one in found[parts.SHARES])
    with pytest.raises(FcbenchError, match="no row says what its file consists of"):
        parts.shares(to_frame([rate_point(parts="", schema=4)]))


def test_parts_at_the_target_sum_to_the_rate_and_lie_between_their_points(folder: Path) -> None:
    rows = situations.load([folder])
    comparisons, _ = compare(rows, "strata", metric_values_of=lambda task: None)
    found = {one.of.codec: one for one in parts.at_targets(rows, comparisons)}
    assert set(found) == {"hyperprior", "strata"}
    for one in found.values():
        assert sum(one.rates.values()) == pytest.approx(one.of.rate_at_target.value)
    mine = found["hyperprior"]
    total = mine.of.rate_at_target.value
    assert total is not None and 0.2 < total < 0.4  # the target, 0.3465, lies just below the fourth point
    assert 0.2 < mine.rates["z"] / total < 0.3 and mine.rates["container"] / total == pytest.approx(0.2)
    assert found["strata"].rates["y0"] == found["strata"].rates["y1"]


def test_the_figure_stacks_to_a_hundred_percent() -> None:
    fig = shown.figure(to_frame(two_codecs()))
    panels = [ax for ax in fig.axes if ax.get_visible()]
    assert len(panels) == 2
    for ax in panels:
        tops = [bar.get_y() + bar.get_height() for bars in ax.containers[-1:] for bar in bars]
        assert tops == pytest.approx([100] * 5)


def test_panels_without_a_curve_are_not_shown() -> None:
    rows = [replace(point, codec=f"{point.codec}{i}") for i in range(3) for point in two_codecs()]
    fig = shown.figure(to_frame(rows))
    assert (len(fig.axes), sum(ax.get_visible() for ax in fig.axes)) == (8, 6)


def test_files_of_each_task_and_data_set_have_panels() -> None:
    of_tasks = [sweep(3, task, objective=o, task=task) for o in ("mse", "levels") for task in ("pose", "depth")]
    label = [sweep(2, task, kind="label", codec="label:png", task=task) for task in ("pose", "depth")]
    other = sweep(3, "c", objective="mse", task="pose", dataset="camvid")
    fig = shown.figure(to_frame([p for points in [*of_tasks, *label, other] for p in points]))
    titles = [" ".join(ax.get_title().split()) for ax in fig.axes if ax.get_visible()]
    assert titles == [
        "hyperprior, mse, hiera_nano, scenes",
        "hyperprior, levels, hiera_nano, pose, scenes",
        "hyperprior, levels, hiera_nano, depth, scenes",
        "label:png, hiera_nano, pose, scenes",
        "label:png, hiera_nano, depth, scenes",
        "hyperprior, mse, hiera_nano, camvid",
    ]


def test_many_parts_have_colours_of_their_own_and_a_legend_that_fits() -> None:
    names = ["container", "headers", *(f"{latent} of stage{i}" for latent in "zy" for i in range(1, 5))]
    fig = shown.figure(to_frame(sweep(3, parts=json.dumps(dict.fromkeys(names, 10)))))
    colours = {bars.get_label(): to_rgb(bars[0].get_facecolor()) for bars in fig.axes[0].containers}
    assert len(set(colours.values())) == len(names)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    box = fig.legends[0].get_window_extent(canvas.get_renderer())
    assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with ResultsFolder(tmp_path) as results:
        for point in two_codecs():
            results.append([replace(point, task="another")], SAMPLES)
    return tmp_path


def test_verbs(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(main, ["plot", str(folder), "--parts", "-o", str(tmp_path / "parts.png")]).exit_code == 0
    assert (tmp_path / "parts.png").stat().st_size > 5000
    table = run(main, ["compare", str(folder), "--anchor", "strata", "--parts", "--x", "bpp_content"])
    assert table.exit_code == 0, table.output
    assert "container" in table.stdout and "bpp of content" in table.stdout
    as_json = json.loads(run(main, ["compare", str(folder), "--anchor", "strata", "--parts", "--json"]).stdout)
    assert {tuple(json.loads(one["parts"])) for one in as_json["rates"]} == {("z", "y", "container"), ("y0", "y1")}
    refused = run(main, ["plot", str(folder), "--parts", "--complexity", "-o", str(tmp_path / "x.png")])
    assert refused.exit_code == 1 and "give one of them" in refused.output


def test_verify_finds_parts_that_are_not_the_file(folder: Path) -> None:
    found = [fault.what for fault in verify.verify(folder).faults if "its parts are" in fault.what]
    assert len(found) == 10 and found[0] == "n_bytes is 800, but its parts are 100 bytes"
