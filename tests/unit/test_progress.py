"""Progress: what remains is told honestly, in a terminal, in a log file, to machines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fcbench.core import progress
from fcbench.core.codecs import Kind
from fcbench.core.progress import Dot, Eta, JsonReport, RelayedReport, Report, Running, Work, text_plot
from fcbench.measure.run import dots

TRACE = Path(__file__).parent / "traces" / "quick_run.jsonl"
"""What `fcbench run --quick --json-lines` said of its stages, in seconds of CPU: others used the machine meanwhile."""


def test_at_a_quarter_of_a_run_what_remains_is_within_30_percent() -> None:
    plan, *stages = map(json.loads, TRACE.read_text().splitlines())
    works = {key: Work(w["expected_s"], tuple(w["pools"]), w["gradual"]) for key, w in plan["stages"].items()}
    assert len(stages) == len(works) == 64
    eta, total_s, errors = Eta(works), stages[-1]["elapsed_s"], []
    for stage in stages:
        eta.finish(stage["key"], stage["took_s"])
        share = stage["elapsed_s"] / total_s
        if 0.25 <= share <= 0.75:
            errors.append(eta.left_s(stage["elapsed_s"]) / (total_s - stage["elapsed_s"]) - 1)
    assert len(errors) > 20 and max(map(abs, errors)) < 0.3
    (ten,) = [stage["elapsed_s"] for stage in stages[9:10]]
    assert ten / 10 * 54 > 1.4 * (total_s - ten)  # taking all stages for equal: the first ten are the longest


def test_the_most_similar_stages_correct_the_forecast() -> None:
    works = {
        "a": Work(10, ("training a", "any")),
        "a2": Work(10, ("training a", "any")),
        "b": Work(10, ("training b", "any")),
        "c": Work(7, ("other",)),
    }
    eta = Eta(works)
    assert eta.left_s(0) == 37
    eta.finish("a", 30)
    assert eta.left_s(30) == pytest.approx(30 + 30 + 7)
    eta.finish("b", 10)
    assert eta.left_s(40) == pytest.approx(30 + 7)
    eta.finish("c", 0.0)
    assert eta.left_s(40) == pytest.approx(30)


def test_a_stage_under_way_is_evidence() -> None:
    """Two hours of an encoder that was taken for fast are foreseen before its first image set is done."""
    eta = Eta({"train": Work(10, ("x", "features")), "test": Work(2, ("x", "features"))})
    assert eta.left_s(720, [Running("train", 720, share=0.1)]) == pytest.approx(0.9 * 7200 + 1440)
    assert eta.left_s(4, [Running("train", 4)]) == pytest.approx(6 + 2)
    assert eta.left_s(50, [Running("train", 50)]) == pytest.approx(2)


def test_workers_share_what_remains() -> None:
    eta = Eta({name: Work(10, ("p",)) for name in "abcd"})
    eta.finish("a", 10)
    eta.finish("b", 10)
    assert eta.left_s(10) == pytest.approx(10)


# ------------------------------------------------------------------------------------------------ shown
DOTS = [Dot("e: depth, rmse", "", None, 1.0), Dot("e: depth, rmse", "pq", 0.1, 2.0)]


def test_a_terminal_shows_stage_points_time_and_curves() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, color_system=None, width=80)
    with Report({"a": Work(100, ("p",)), "b": Work(100, ("p",))}, console, (4, 1)) as report:
        report.working("a")
        with report.part("training") as advance:
            advance(1, 4)
            report.measured(DOTS)
            report.finish("the first", 100.0, "a")
            report._live.refresh()
    shown = text.getvalue()
    assert "3 of 4 points, stage 1 of 2, 0 s, about" in shown
    assert "training" in shown and "1/4" in shown
    assert "e: depth, rmse" in shown and "o pq" in shown and "-------" in shown
    assert "[1/2] the first (100.0 s; about" in shown


def test_a_log_file_gets_plain_lines() -> None:
    text = io.StringIO()
    with Report({"a": Work(1, ("p",)), "b": Work(1, ("p",))}, Console(file=text), (4, 0)) as report:
        report.working("a")
        with report.part("training") as advance:
            advance(1, 4)
        report.measured(DOTS)
        report.finish("", 1.0, "b")  # tables: no line
        report.finish("the last", 1.0, "a")
    assert text.getvalue() == "[2/2] the last (1.0 s; about 0 s left)\n"


def test_machines_get_objects() -> None:
    lines: list[str] = []
    with JsonReport({"a": Work(1, ("p",))}, (4, 2), write=lines.append) as report:
        report.say("x\ny")
        report.measured(DOTS)
        report.finish("done", 1.0, "a")
    plan, said, end, point, stage = map(json.loads, lines)
    assert plan["stages"]["a"] == {"expected_s": 1, "pools": ["p"], "gradual": True} and plan["n_measured"] == 2
    assert said == {"event": "say", "line": "x\ny"}
    assert end["series"] == "" and (point["x"], point["y"], point["n_measured"]) == (0.1, 2.0, 4)
    assert stage["key"] == "a" and stage["took_s"] == 1 and stage["left_s"] == 0


def test_what_another_process_says_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAUSE_S", 0)
    works = {"a": Work(100, ("p",)), "b": Work(100, ("p",))}
    report = Report(works, Console(file=io.StringIO()))
    there = RelayedReport(lambda event: report.follow(3, event))
    there.working("a")
    with there.part("training") as advance:
        advance(1, 2)
        assert [stage.share for stage, _ in report._running.values()] == [0.5]
    report.finish("", 1.0, "a")
    assert not report._running
    there.working("b")
    report.forget(3)
    assert not report._running


def test_a_plot_is_as_wide_and_high_as_asked() -> None:
    lines = text_plot([Dot("p" * 99, str(i), 10.0**i, float(i)) for i in range(20)], 30, 5, "bpp")
    assert len(lines) == 1 + 5 + 2 and max(map(len, lines)) <= 30
    assert text_plot([Dot("p", "", None, 1.0)], 20, 3, "bpp")[1].strip() == "1 |"


def test_metrics_that_are_not_finite_are_not_drawn() -> None:
    row = {"encoder": "e", "task": "t", "metric": "m", "kind": Kind.CODED, "codec": "c", "bpp": 1.0, "primary": True}
    rows: Any = [SimpleNamespace(**row, value=value) for value in (0.5, float("nan"), float("inf"), None)]
    assert dots(rows) == [Dot("e: t, m", "c", 1.0, 0.5)]
