"""Runs by several processes: the rows of one process, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from tiny import TIMES, TINY

from fcbench.results import table

Run = Callable[..., Result]
OPTIONS = ("--task", "segmentation", "--task", "captioning")


def rows(out: Path) -> pd.DataFrame:
    """All that does not depend on when it was measured."""
    return table.load(out).drop(columns=TIMES).sort_values(["point", "metric"]).reset_index(drop=True)


def started(out: Path, cache: Path, *args: str) -> subprocess.Popen[bytes]:
    """A tiny run by two workers, in a session of its own."""
    command = [sys.executable, "-m", "fcbench", *TINY, "--encoder", "sam2_nano", "--jobs", "2", *args]
    log = (out.parent / "log").open("ab")
    return subprocess.Popen(
        [*command, "--cache-dir", str(cache), "--out", str(out)], stdout=log, stderr=log, start_new_session=True
    )


def workers_of(parent: int) -> list[int]:
    """Worker processes of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except OSError:  # gone meanwhile
            continue
        if ppid == parent and b"spawn_main" in command:  # not the tracker of resources
            found.append(int(path.name))
    return sorted(found)


def until(true: Callable[[], object], limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def test_two_workers_give_the_rows_of_one_process(tiny: Run, finished: Path, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", *OPTIONS, "--jobs", "2", "--cache-dir", tmp_path / "cache", "--keep-streams")
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(rows(finished), rows(tmp_path / "out"), check_exact=True)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "out" / "streams").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in (finished / "streams").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_worker_killed_in_a_training_changes_no_row(finished: Path, tmp_path: Path) -> None:
    with started(tmp_path / "out", tmp_path / "cache", *OPTIONS) as run:
        until(lambda: list((tmp_path / "cache" / "models").glob("task-*.lock")) or run.poll() is not None)
        os.kill(workers_of(run.pid)[0], signal.SIGKILL)
        assert run.wait(240) == 0, (tmp_path / "log").read_text()
    assert "a worker process died at" in (tmp_path / "log").read_text()
    pd.testing.assert_frame_equal(rows(finished), rows(tmp_path / "out"), check_exact=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_worker_and_goes_on_where_it_was(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(out, tmp_path / "cache", *OPTIONS) as run:
        until(lambda: (out / "rates.csv").exists() or run.poll() is not None)
        workers = workers_of(run.pid)
        run.kill()
        run.wait()
    assert len(workers) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache" / "models").glob("*.safetensors")}
    n_before = table.load(out).point.nunique()
    assert made and n_before
    with started(out, tmp_path / "cache", *OPTIONS) as run:
        assert run.wait(240) == 0, (tmp_path / "log").read_text()
    assert f"{n_before} were already in" in (tmp_path / "log").read_text()
    assert {p: p.stat().st_mtime_ns for p in made} == made  # nothing was trained twice
    assert not list(out.glob(".streams-*"))
    pd.testing.assert_frame_equal(rows(finished), rows(out), check_exact=True)


@pytest.mark.slow
def test_a_node_whose_process_always_dies_is_a_failed_row(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(
        '"""Ends its process."""\n'
        "import os\n"
        "from fcbench.codecs.uniform import PLUGIN as uniform\n\n\n"
        "class Deadly:\n"
        "    def __getattr__(self, name):\n"
        "        return getattr(uniform, name)\n\n"
        "    def sweep(self, objective):\n"
        "        return ({'bits': 4},)\n\n"
        "    def build(self, *args):\n"
        "        os._exit(9)\n\n\n"
        "PLUGIN = Deadly()\n"
    )
    result = tiny(tmp_path / "out", "--task", "segmentation", "--codec", tmp_path / "deadly.py", "--jobs", "2")
    assert result.exit_code == 1 and "its process died 3 times" in result.output
    found = table.load(tmp_path / "out")
    assert (found[found.kind != "coded"].status == "ok").all()
    assert found[found.kind == "coded"].status.str.contains("its process died 3 times").all()
