"""What a killed run leaves: no process, no open pipe, no litter. What a damaged cache changes: nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from click.testing import Result
from tiny import TIMES

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

LIMIT_S = 10


def _session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # gone meanwhile
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def _until(true: Callable[[], object], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)


def test_a_killed_run_leaves_no_process_and_closes_its_pipe(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "fcbench", "run", "--quick", "--device", "cpu", "--task", "depth"]
    command += ["--n-train", "1000", "--cache-dir", str(cache), "--out", str(tmp_path / "out")]
    reader, writer = os.pipe()
    with subprocess.Popen(command, stdout=writer, stderr=writer, start_new_session=True) as run:
        os.close(writer)
        try:
            _until(lambda: list(cache.glob("scenes-*/*/train/0000?")) or run.poll() is not None, 120)
            assert len(_session(run.pid)) >= 3, "the run and its workers"
            run.kill()
            _until(lambda: select.select([reader], [], [], 0)[0] and not os.read(reader, 1 << 16), LIMIT_S)
            _until(lambda: not _session(run.pid), LIMIT_S)
        finally:
            for pid in _session(run.pid):
                os.kill(pid, signal.SIGKILL)
            os.close(reader)


READING = """
import time, torch
from pathlib import Path
from test_features import Data, Enc, run

class Slow(Data):
    def __getitem__(self, index):
        Path({out!r}, f"reads{{index}}").touch()
        time.sleep(60)

run(Path({out!r}), Slow(), n_workers=2)
"""


def test_a_killed_extraction_leaves_no_reading_process(tmp_path: Path) -> None:
    unit = str(Path(__file__).parents[1] / "unit")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([unit, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", READING.format(out=str(tmp_path))]
    with subprocess.Popen(command, env=environment, start_new_session=True) as run:
        try:
            _until(lambda: len(list(tmp_path.glob("reads*"))) == 2 or run.poll() is not None, 60)
            assert len(_session(run.pid)) == 3
            run.kill()
            _until(lambda: not _session(run.pid), 3)
        finally:
            for pid in _session(run.pid):
                os.kill(pid, signal.SIGKILL)


FLIPPED = (  # a mask, features, a readout, a codec, the record of another codec's training
    ("scenes-*/128x128/test/00000/segmentation.npy", 0),
    ("features/*/*/stage3.npy", 0),
    ("models/task-*.safetensors", 0),
    ("models/codec-*.safetensors", 0),
    ("models/codec-*.safetensors.training", -1),
)


def test_flipped_bits_in_the_cache_change_no_row(
    tiny: Callable[..., Result], finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"  # of no other test: each of its files is read
    run = ("--task", "segmentation", "--task", "captioning", "--keep-streams", "--cache-dir", cache)
    tiny(tmp_path / "before", *run)
    for pattern, place in FLIPPED:
        path = sorted(cache.glob(pattern))[place]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    result = tiny(tmp_path / "out", *run)
    assert result.exit_code == 0, result.output
    assert caplog.text.count("is damaged: making it again") == len(FLIPPED)
    whole, again = (pandas.read_csv(out / "rates.csv").drop(columns=TIMES) for out in (finished, tmp_path / "out"))
    pandas.testing.assert_frame_equal(whole, again, check_exact=True)
