"""Runs as tasks of a Ray cluster: the rows of one process, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from tiny import TIMES, TINY

from fcbench.results import table

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

Run = Callable[..., Result]
OPTIONS = ("--task", "segmentation", "--task", "captioning")


def rows(out: Path) -> pd.DataFrame:
    """All that does not depend on when it was measured."""
    return table.load(out).drop(columns=TIMES).sort_values(["point", "metric"]).reset_index(drop=True)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of two machines with a core each, played by two local processes."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()


def started(out: Path, cache: Path, address: str, *args: str) -> subprocess.Popen[bytes]:
    options = (*OPTIONS, "--ray", address, *args)
    command = [sys.executable, "-m", "fcbench", *TINY, "--encoder", "sam2_nano", *options]
    log = (out.parent / "log").open("ab")
    return subprocess.Popen([*command, "--cache-dir", str(cache), "--out", str(out)], stdout=log, stderr=log)


def until(true: Callable[[], object], limit_s: float = 200) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def tasks_at_work() -> list[int]:
    """Processes that do nodes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_do"):
                found.append(int(path.parent.name))
        except OSError:  # gone meanwhile
            continue
    return found


def test_a_local_cluster_gives_the_rows_of_one_process(tiny: Run, finished: Path, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", *OPTIONS, "--ray", "local", "--cache-dir", tmp_path / "cache", "--keep-streams")
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(rows(finished), rows(tmp_path / "out"), check_exact=True)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "out" / "streams").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in (finished / "streams").iterdir()}


def test_a_lost_worker_and_a_lost_machine_change_no_row(cluster: Any, finished: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    with started(out, cache, cluster.address) as run:
        until(lambda: list((cache / "models").glob("task-*.lock")) or run.poll() is not None)
        os.kill(tasks_at_work()[0], signal.SIGKILL)
        until(lambda: (out / "rates.csv").exists() or run.poll() is not None)
        cluster.remove_node(cluster.list_all_nodes()[1])
        assert run.wait(280) == 0, (tmp_path / "log").read_text()
    pd.testing.assert_frame_equal(rows(finished), rows(out), check_exact=True)


@pytest.mark.timeout(600)
def test_machines_that_share_no_cache_give_the_rows_of_one_process(
    cluster: Any, finished: Path, tiny: Run, tmp_path: Path
) -> None:
    out, cache, before, seen = tmp_path / "out", tmp_path / "cache", own_caches(), set[Path]()
    with started(out, cache, cluster.address, "--own-caches", "--codec", "uniform") as run:
        while run.poll() is None:
            seen |= own_caches() - before
            time.sleep(0.1)
    assert run.returncode == 0, (tmp_path / "log").read_text()
    expected = rows(finished)
    expected = expected[expected.codec != "hyperprior"].reset_index(drop=True)
    pd.testing.assert_frame_equal(expected, rows(out), check_exact=True)
    assert len(seen) == 2 and not own_caches() - before  # one each, cleared at the end
    made = {p: p.stat().st_mtime_ns for p in (cache / "features").rglob("*.npy")}
    again = tiny(tmp_path / "again", *OPTIONS, "--codec", "uniform", "--cache-dir", cache)
    assert "to train: readouts 0, codecs 0" in again.output  # all that was made is in the driver's cache
    assert made and {p: p.stat().st_mtime_ns for p in (cache / "features").rglob("*.npy")} == made
    pd.testing.assert_frame_equal(expected, rows(tmp_path / "again"), check_exact=True)


def own_caches() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("fcbench-*/models"))


def test_a_killed_run_goes_on_where_it_was(cluster: Any, finished: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    with started(out, cache, cluster.address) as run:
        until(lambda: (out / "rates.csv").exists() or run.poll() is not None)
        run.kill()
    until(lambda: not tasks_at_work(), 60)
    made = {p: p.stat().st_mtime_ns for p in (cache / "models").glob("*.safetensors")}
    n_before = table.load(out).point.nunique()
    with started(out, cache, cluster.address) as run:
        assert run.wait(280) == 0, (tmp_path / "log").read_text()
    assert f"{n_before} were already in" in (tmp_path / "log").read_text()
    assert {p: p.stat().st_mtime_ns for p in made} == made  # nothing was trained twice
    pd.testing.assert_frame_equal(rows(finished), rows(out), check_exact=True)


def test_no_such_cluster(tiny: Run, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", *OPTIONS, "--ray", "127.0.0.1:1")
    assert result.exit_code == 1 and "no Ray cluster at '127.0.0.1:1'" in result.output


SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


def test_the_slurm_script_joins_its_nodes(finished: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks/examples/slurm.sh"
    programs = tmp_path / "bin"
    programs.mkdir()
    python = f'#!/bin/sh\nexec "{sys.executable}" -m'
    scripts = {"srun": SRUN, "scontrol": "#!/bin/sh\necho one\necho two\n"}  # two nodes, both of them this machine
    scripts |= {"fcbench": f'{python} fcbench "$@"\n', "ray": f'{python} ray.scripts.scripts "$@"\n'}
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    variables = {"PATH": path, "SLURM_JOB_NODELIST": "x", "FCBENCH_RAY_PORT": "26379", "SLURM_CPUS_PER_TASK": "1"}
    command = [*TINY[1:], "--encoder", "sam2_nano", *OPTIONS, "--cache-dir", str(tmp_path / "c")]
    done = subprocess.run(
        [str(script), *command, "--out", str(tmp_path / "out")],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Ray runtime started") == 2
    pd.testing.assert_frame_equal(rows(finished), rows(tmp_path / "out"), check_exact=True)
