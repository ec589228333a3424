"""The page of results: its numbers are those of `fcbench compare`, its texts are data, it needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from points import end, rate_point, sweep, to_frame
from test_compare import ceiling, curve_points, metric_values_of, write

from fcbench.analysis import distortion, situations
from fcbench.analysis.compare import against_each, compare
from fcbench.analysis.results import load
from fcbench.cli.main import main
from fcbench.core.errors import FcbenchError
from fcbench.reports import style
from fcbench.reports.page import cautions, html
from fcbench.reports.page.contents import contents, curves
from fcbench.results.folder import PICTURES, ResultsFolder
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>&lt;$title`${1}"
ENDS = (("ceiling", 0.47), ("floor", 0.1))


def folder(path: Path, *codecs: str, **changes: Any) -> Path:
    """A results folder of sweeps of two tasks and both ends, with samples that give no intervals."""
    rows: list[RatePoint] = []
    for task, metric in (("segmentation", "miou"), ("pose", "pck")):
        what = {"task": task, "metric": metric, "encoder": "some_encoder", **changes}
        for c, codec in enumerate(codecs):
            rows += sweep(5, f"{task}{c}-", codec=codec, **what)
        rows += [end(kind, value, **{**what, "point": f"{task}-{kind}"}) for kind, value in ENDS]
    with ResultsFolder(path) as out:
        for row in rows:
            out.append([row], SampleTable(["a"], [None], np.ones((1, 2))))
        out.add_provenance({"name": "tiny"})
    return path


def table_of(text: str) -> list[list[str]]:
    """Cells of the rows of GitHub's tables."""
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = [[c.strip("| ") for c in line] for line in lines]
    return [row for row in cells if row[0] not in ("codec", "---")]


def test_several_anchors_at_once_give_what_each_gives(tmp_path: Path) -> None:
    points = [*curve_points("a"), *curve_points("b", rate=0.75), *curve_points("c", lift=0.02), ceiling()]
    rows = situations.load([write(tmp_path, *points)])
    found, notes = against_each(rows, ["a", "b", "c"], metric_values_of=metric_values_of)
    for anchor in "abc":
        assert (found[anchor], notes) == compare(rows, anchor, metric_values_of=metric_values_of)
    assert found["a"][1].bd_rate_percent.low is not None


def test_its_tables_are_those_of_compare(tmp_path: Path) -> None:
    runs = folder(tmp_path / "runs", "a", "b", "raw")
    shown = contents(load(runs), "runs")["compare"]
    assert shown["anchors"] == ["a", "b", "raw"]
    for anchor, tables in zip(shown["anchors"], shown["tables"]):
        done = CliRunner().invoke(main, ["compare", str(runs), "--anchor", anchor, "--format", "markdown"])
        assert [row for t in tables for row in t["rows"]] == table_of(done.output)
        assert all(f"[{i}] {note}" in done.output for t in tables for i, note in enumerate(t["notes"], 1))


def test_costs_of_coding_stand_beside_those_of_the_networks(tmp_path: Path) -> None:
    complexity = contents(load(folder(tmp_path / "runs", "a", neck_ms=None)), "runs")["more"][-1]
    (line,) = complexity["tables"][0]["rows"]
    assert line[:4] == ["a", "1.5", "2.5", "4"], "encode, decode, memory"
    assert complexity["after"][1:] == [
        f"Networks of some_encoder, {task}: encoder 12 ms, head 0.5 ms." for task in ("segmentation", "pose")
    ]


def test_points_hold_every_metric_and_unit(tmp_path: Path) -> None:
    shown = contents(load(folder(tmp_path / "runs", "a", "b")), "runs")
    tasks = [i for i, panel in enumerate(shown["panels"]) if panel["task"] != distortion.TASK]
    assert sum(p[0] in tasks for p in shown["points"]) == 2 * 2 * 5
    assert sum(e[0] in tasks for e in shown["ends"]) == 4
    panel, metric, codec, knobs, bpp, bpfp, n_bytes, value, *_ = shown["points"][0]
    first = load(tmp_path / "runs").rates.query("codec == 'a'").iloc[0]
    assert [shown["panels"][panel]["task"], shown["metrics"][metric]["name"]] == [first["task"], first["metric"]]
    assert [shown["codecs"][codec]["name"], shown["knobs"][knobs]] == ["a", first["params"]]
    assert np.allclose([bpp, bpfp, n_bytes, value], first[["bpp", "bpfp", "bytes_per_sample", "value"]].tolist(), 1e-4)


def test_a_panel_for_all_tasks_shows_the_error_of_the_features(tmp_path: Path) -> None:
    shown = contents(load(folder(tmp_path / "runs", "a", "b", feature_mse=0.1)), "runs")
    (number,) = [i for i, panel in enumerate(shown["panels"]) if panel["task"] == distortion.TASK]
    assert shown["panels"][number]["primary"] == distortion.METRIC
    points = [p for p in shown["points"] if p[0] == number]
    assert len(points) == 2 * 5, "codecs and rates, whatever the number of tasks"
    assert {shown["metrics"][p[1]]["name"] for p in points} == {distortion.METRIC}
    assert {p[7] for p in points} == {10.0}
    none = contents(load(folder(tmp_path / "lossless", "raw", feature_mse=0.0)), "runs")
    assert all(panel["task"] != distortion.TASK for panel in none["panels"])


def test_codecs_differ_in_colour_and_marker() -> None:
    points = [p for i in range(25) for p in sweep(2, codec=f"codec_{i}")]
    rows = to_frame(points)
    rows = rows.assign(codec_label=rows["codec"], encoder_label="e", data_label="d", panel="p")
    drawn = curves(rows)["codecs"]
    assert len({(c["colour"], c["marker"]) for c in drawn}) == 25
    assert len({c["marker"] for c in drawn[:15]}) == len({style.svg_path(m) for m in style.MARKERS}) == 15


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"weights_origin": "random(seed=0)"}, "red", "Random weights: e."),
        ({"status": "boom", "metric": "", "value": None}, "red", "1 points failed (c), first: boom"),
        ({"rate_alarm": True}, "amber", "Rate alarm at 1 points (c)"),
        ({"commit": "abc-dirty"}, "amber", "differed from its commit"),
        ({"codec_stop": "steps"}, "plain", "training of the codec ran out of steps"),
        ({"codec_stop": "steps", "codec_rest": 31.0}, "plain", "about 31 to 31 % of its bits would be saved"),
        ({"codec_stop": "steps", "codec_rest": None}, "plain", "it is not known what would be saved"),
    ],
)
def test_cautions(changes: dict[str, Any], level: str, words: str, tmp_path: Path) -> None:
    row = replace(rate_point(codec="c", encoder="e"), **changes)
    with ResultsFolder(tmp_path) as out:
        out.append([row], None if row.status != "ok" else SampleTable(["a"], [None], np.ones((1, 2))))
    rows = situations.load([tmp_path])
    found = cautions.cautions(rows.assign(codec_label=rows["codec"]))
    assert [c["level"] for c in found if words in c["text"]] == [level]


# ------------------------------------------------------------------------------------------- the file
@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_library", lambda: "window.vegaEmbed = async () => {};")


def test_names_from_files_are_no_markup(tmp_path: Path, no_library: None) -> None:
    runs = folder(tmp_path / "runs", HOSTILE, "b", suite=HOSTILE, encoder=HOSTILE, neck=HOSTILE)
    text = html.page(HOSTILE, [contents(load(runs), HOSTILE)], HOSTILE)
    assert "<script>window" not in text and "<img" not in text
    assert len(re.findall("<script", text)) == len(re.findall("</script>", text)) == 3
    (data,) = re.findall('<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["sets"][0]["codecs"][0]["name"] == HOSTILE


def test_it_asks_no_network_and_runs_only_its_own_programs(tmp_path: Path, no_library: None) -> None:
    text = html.page("t", [contents(load(folder(tmp_path / "runs", "a", "b")), "runs")], "made")
    policy = re.findall('Content-Security-Policy" content="(.*?)"', text)[0]
    assert policy.startswith("default-src 'none';") and "http" not in policy
    programs = re.findall('<script type="module">(.*?)</script>', text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(p.encode()).digest()).decode() for p in programs]
    assert [f"'sha256-{d}'" in policy for d in digests] == [True, True]
    assert not re.findall("(?:src|href)=[\"']?http", text)


def test_the_library_is_there_and_closes_no_script() -> None:
    pytest.importorskip("vl_convert")
    library = html._library()
    assert "vegaEmbed" in library and "</script" not in library and len(library) < 1_200_000


# ----------------------------------------------------------------------------------------- the command
def test_each_takes_every_folder_below(tmp_path: Path, no_library: None) -> None:
    folder(tmp_path / "all" / "one", "a", "b")
    folder(tmp_path / "all" / "deep" / "two", "a")
    (tmp_path / "all" / "one" / "curves.png").write_bytes(b"")
    page = tmp_path / "all" / "index.html"
    done = CliRunner().invoke(main, ["report", str(tmp_path / "all"), "--each", "-o", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert [n in text for n in ("deep/two", '"one/curves.png"')] == [True, True]
    assert page.read_text().count('"cautions":') == 2


def test_what_it_refuses(tmp_path: Path) -> None:
    runs = folder(tmp_path / "runs", "a")

    def refused(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["report", *arguments])
        assert done.exit_code == 1 and done.output.count("\n") == 1
        return done.output

    assert "suffix must be .html" in refused(str(runs), "-o", str(tmp_path / "page.pdf"))
    assert "no rates.csv at or below" in refused(str(tmp_path / "x"), "--each", "-o", str(tmp_path / "page.html"))
    assert "no rates.csv in" in refused(str(tmp_path / "x"), "-o", str(tmp_path / "page.html"))


def test_a_folder_without_rows(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as out:
        assert not out.points
    (tmp_path / "rates.csv").write_text(",".join(f'"{c}"' for c in rate_point().__slots__) + "\n")
    with pytest.raises(FcbenchError, match="no rows in x"):
        contents(load(tmp_path), "x")


def test_pictures_of_points_without_a_row_are_left_out(tmp_path: Path) -> None:
    runs = folder(tmp_path / "runs", "a")
    point = load(runs).rates["point"].iloc[0]
    points = [{"keys": {"segmentation": key}, "samples": [{"sample": "s"}]} for key in ("gone", point)]
    (runs / PICTURES).write_text(json.dumps({"images": {"s": "data:,"}, "points": points}))
    shown = contents(load(runs), "runs")["pictures"]
    assert [stop["samples"] for stop in shown["stops"]] == [[{"sample": "s"}]] and shown["images"] == {"s": "data:,"}
    (runs / PICTURES).write_text('{"images"')
    with pytest.raises(FcbenchError, match="pictures.json is damaged.*delete it"):
        contents(load(runs), "runs")


def test_the_gallery_links_every_folder_and_runs_nothing(tmp_path: Path) -> None:
    folder(tmp_path / "all" / "one", "a", "b")
    folder(tmp_path / "all" / "deep" / HOSTILE[:9].strip("</>"), HOSTILE, weights_origin="random(seed=0)")
    (tmp_path / "all" / "one" / "curves.png").write_bytes(b"")
    (tmp_path / "all" / "one" / "compare.md").write_bytes(b"")
    page = tmp_path / "all" / "index.html"
    done = CliRunner().invoke(main, ["report", str(tmp_path / "all"), "--gallery", "-o", str(page)])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(main, ["report", str(tmp_path / "all"), "--gallery", "-o", str(page), "--overwrite"])
    assert again.exit_code == 0, again.output
    text = page.read_text()
    assert text.count("<tr") == 1 + 2 and "Random weights: some_encoder" in text
    links = re.findall('href="(.*?)"', text)
    assert {"one/compare.md", "one/curves.png", "one/rates.csv", "one/provenance.json"} <= set(links)
    assert all((page.parent / link).exists() for link in links)
    assert "<script" not in text and "http:" not in text and "https:" not in text and "default-src 'none'" in text


def test_the_committed_gallery_holds_every_committed_folder() -> None:
    """After a new folder: `fcbench report results --gallery -o results/index.html --overwrite`."""
    results = Path(__file__).parents[2] / "results"
    text = (results / "index.html").read_text()
    folders = {p.parent.relative_to(results).as_posix() for p in results.rglob("rates.csv")}
    assert {f for f in folders if f'href="{f}/rates.csv"' in text} == folders
    assert len(text) < 300_000
