"""Curves that others published: read, put beside measured ones, drawn dashed, marked; and ours for others."""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from points import end, rate_point, sweep, to_frame

from fcbench.analysis import published
from fcbench.analysis.compare import Comparison, compare
from fcbench.analysis.results import Results
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.reports import compare_table, curves_figure, points_table, style, tables
from fcbench.reports.page import contents

RATES = [0.05 * 2**i for i in range(5)]
VALUES = [0.2 + 0.05 * i for i in range(5)]


def measured(**changes: Any) -> pd.DataFrame:
    rows = [*sweep(5, codec="strata", **changes), end("ceiling", 0.4, **changes)]
    return to_frame(rows).assign(folder="runs/x")


def written(path: Path, **changes: Any) -> Path:
    """A CSV file of one curve at half the rates of `measured`."""
    said = {"label": "theirs", "rate_unit": "bpp", "metric": "miou", "task": "segmentation", "source": "Table 2"}
    lines = [{**said, "rate": r / 2, "value": v, **changes} for r, v in zip(RATES, VALUES)]
    pd.DataFrame(lines).to_csv(path, index=False)
    return path


def compared(rows: pd.DataFrame, x: str = "bpp") -> tuple[dict[str, Comparison], list[str]]:
    found, notes = compare(rows, "strata", x=x)
    return {c.codec: c for c in found}, notes


def test_half_the_bits_of_a_published_curve_are_minus_50_percent(tmp_path: Path) -> None:
    found, notes = compared(published.add(measured(), [written(tmp_path / "a.csv")]))
    theirs = found["theirs (published)"]
    assert theirs.bd_rate_percent.value == pytest.approx(-50, abs=1e-6) and theirs.bd_rate_percent.low is None
    assert theirs.kind == "published" and theirs.source == "Table 2" and found["strata"].source == ""
    assert theirs.rate_at_target.value is not None and theirs.n_failed == 0
    assert [n for n in notes if "no samples" in n] == [n for n in notes if "no samples of 6 points" in n] != []


def test_tables_say_that_it_was_not_measured_here(tmp_path: Path) -> None:
    found, notes = compare(published.add(measured(), [written(tmp_path / "a.csv")]), "strata")
    text = tables.markdown(compare_table.document(found, notes))
    assert "| theirs (published) [1] |" in text and "[1] published, not measured here: Table 2" in text


def test_a_published_curve_is_an_anchor_whatever_the_seeds(tmp_path: Path) -> None:
    rows = pd.concat([measured(seed=0), measured(seed=1), measured(seed=1).assign(codec="other")], ignore_index=True)
    rows = published.add(rows, [written(tmp_path / "a.csv")])
    found, _ = compare(rows, "theirs (published)")
    values = {c.codec: c.bd_rate_percent.value for c in found}
    assert values["strata"] == pytest.approx(100) and values["other"] == pytest.approx(100)


def test_it_stands_beside_every_encoder_of_its_task_alone(tmp_path: Path) -> None:
    rows = pd.concat([measured(), measured(encoder="b"), measured(task="depth", metric="rmse")], ignore_index=True)
    added = published.add(rows, [written(tmp_path / "a.csv")])
    theirs = added[added["kind"] == Kind.PUBLISHED]
    assert set(theirs["encoder"]) == {"hiera_nano", "b"} and set(theirs["task"]) == {"segmentation"}
    assert len(theirs) == 10 and theirs["n_bytes"].isna().all()
    pd.testing.assert_frame_equal(added[added["kind"] != Kind.PUBLISHED][list(rows)], rows)


def test_compressai_results_are_read_by_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "their.json"
    results = {"bpp": RATES, "miou": VALUES, "psnr-rgb": [30.0] * 5}
    file.write_text(json.dumps({"name": "bmshj", "description": "on X", "results": results}))
    with caplog.at_level(logging.WARNING):
        found, _ = compared(published.add(measured(), [file]))
    assert found["bmshj (published)"].bd_rate_percent.value == pytest.approx(0)
    assert found["bmshj (published)"].source == "their.json: on X"
    assert "psnr-rgb is not measured (measured: segmentation miou)" in caplog.text


def test_another_unit_is_refused_with_a_reason(tmp_path: Path) -> None:
    rows = published.add(measured(), [written(tmp_path / "a.csv", rate_unit="bpfp")])
    found, notes = compared(rows)
    assert set(found) == {"strata"}
    assert "theirs (published): its rate is in bpfp, so it is not compared in bpp" in notes
    assert "theirs (published)" in compared(rows, "bpfp")[0]
    assert any("its rate is in bpfp" in str(t) for t in curves_figure.figure(rows).findobj(Text))


def test_a_unit_that_old_rows_do_not_state_is_refused() -> None:
    old = [replace(p, bpp_content=None) for p in sweep(5, schema=4)]
    rows = to_frame([*old, end("ceiling", 0.4)]).assign(folder="runs/x")
    for use in (
        lambda: compare(rows, "hyperprior", x="bpp_content"),
        lambda: curves_figure.figure(rows, "bpp_content"),
        lambda: points_table.document(rows, "bpp_content"),
    ):
        with pytest.raises(FcbenchError, match="these rows are of schema 4 and do not state bpp_content"):
            use()


def test_a_published_row_says_nothing_of_how_others_were_measured(tmp_path: Path) -> None:
    added = published.add(measured(), [written(tmp_path / "a.csv")])
    theirs = added[added["kind"] == Kind.PUBLISHED]
    for column in ("parts", "checkpoint_sha256", "versions", "utc", "gpu", "task_stop"):
        assert set(theirs[column]) == {""}, column
    for column in ("task_gain", "task_rest", "codec_rest", "codec_steps", "n_bytes", "encode_ms"):
        assert theirs[column].isna().all(), column
    assert set(theirs["folder"]) == {"runs/x"} and set(theirs["n_samples"]) == {4}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "psnr"}, "segmentation psnr is not measured"),
        ({"task": "pose"}, "pose miou is not measured"),
        ({"rate_unit": "bits"}, "unknown rate_unit 'bits'"),
        ({"rate": 0}, "rate above 0"),
        ({"value": "nan"}, "finite value"),
        ({"value": "high"}, "not two numbers"),
        ({"source": ""}, "lacks a label, metric or source"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(FcbenchError, match=said):
        published.add(measured(), [written(tmp_path / "a.csv", **changes)])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "label,rate\nx,1\n", "columns rate_unit, value, metric, task, source are missing"),
        ("a.csv", ",".join(published.COLUMNS) + "\n", "it is empty"),
        ("a.json", "{}", "expected"),
        ("a.json", "[", "holds no published curves"),
        ("a.json", '{"results": {"bpp": [1, 2], "miou": [1]}}', "miou has 1 values, bpp 2"),
        ("a.txt", "", "CompressAI's FILE.json"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FcbenchError, match=said):
        published.read(tmp_path / name)


def test_two_files_with_one_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="both hold a curve 'theirs'"):
        published.add(measured(), [written(tmp_path / "a.csv"), written(tmp_path / "b.csv")])


def test_it_is_drawn_grey_and_dashed(tmp_path: Path) -> None:
    (ax,) = curves_figure.figure(published.add(measured(), [written(tmp_path / "a.csv")])).axes
    lines = {tuple(np.asarray(line.get_xdata())): line for line in ax.lines}
    theirs, ours = lines[tuple(r / 2 for r in RATES)], lines[tuple(RATES)]
    assert theirs.get_linestyle() == "--" and theirs.get_color() in style.GREYS
    assert ours.get_linestyle() == "-" and ours.get_color() not in style.GREYS


def test_the_page_marks_it(tmp_path: Path) -> None:
    rows = published.add(measured(), [written(tmp_path / "a.csv")])
    page = contents.contents(Results([], rows), "x")
    (drawn,) = [c for c in page["codecs"] if c["kind"] == "published"]
    assert drawn["dash"] and drawn["colour"] in style.GREYS
    assert {p[-1] for p in page["points"] if page["codecs"][p[2]] is drawn} == {"published, not measured here: Table 2"}
    assert "theirs (published)" in page["compare"]["anchors"]
    assert all(row[0] != "theirs (published)" for part in page["more"] for t in part["tables"] for row in t["rows"])


# ------------------------------------------------------------------------------------------- export
def test_points_that_are_written_are_read_as_published_and_cost_no_bits_more(tmp_path: Path) -> None:
    rows = measured(seed=0).iloc[::-1]
    file = tmp_path / "ours.csv"
    file.write_text(tables.comma_separated(points_table.document(rows)))
    assert [float(line["rate"]) for line in csv.DictReader(file.open())] == RATES
    found, _ = compared(published.add(rows, [file]))
    assert found["strata (published)"].bd_rate_percent.value == pytest.approx(0, abs=1e-9)
    assert found["strata (published)"].source == "fcbench abc, runs/x"


def test_compressai_files_hold_every_metric_and_are_read_again(tmp_path: Path) -> None:
    other = [replace(r, metric="pixel_accuracy", value=0.9, primary=False) for r in sweep(5, codec="strata")]
    rows = pd.concat([measured(), to_frame(other).assign(folder="runs/x")], ignore_index=True)
    ((name, text),) = points_table.compressai(rows).items()
    record = json.loads(text)
    assert record["results"] == {"bpp": RATES, "miou": VALUES, "pixel_accuracy": [0.9] * 5}
    (tmp_path / name).write_text(text)
    assert compared(published.add(rows, [tmp_path / name]))[0]["strata (published)"].n_points == 5


def test_points_are_means_over_seeds_and_curves_are_named_apart() -> None:
    high = to_frame([replace(r, value=(r.value or 0) + 0.1) for r in sweep(5, codec="strata", seed=1)])
    rows = pd.concat([measured(), high.assign(folder="runs/x"), measured(encoder="b")], ignore_index=True)
    lines = list(csv.DictReader(io.StringIO(tables.comma_separated(points_table.document(rows)))))
    own = [float(line["value"]) for line in lines if line["label"] == "strata, hiera_nano"]
    assert own == pytest.approx([v + 0.05 for v in VALUES])
    assert len([line for line in lines if line["label"] == "strata, b"]) == 5


def test_failures_and_ends_alone_are_no_points() -> None:
    rows = to_frame([end("ceiling", 0.4), rate_point(status="boom", metric="", value=None)]).assign(folder="x")
    with pytest.raises(FcbenchError, match="no coded points to write"):
        points_table.document(rows)
