"""Kill a run anywhere, or take its disk away: does the same run, started again, give the rows of one left alone?

    python -m benchmarks.crash --kills 200 --seed 1 --out results/trust

Trials of a small suite in forked processes, each in a fresh folder and cache: ``moment`` kills (SIGKILL) at a random
moment; ``kill`` at a random write, rename or fsync; ``full`` raises ENOSPC there and goes on to the end it takes;
``two`` lets two runs share a cache and kills one. Then the run is started again, and all rows, and the files that are
left, are compared with those of a run that was left alone.
"""

from __future__ import annotations

import argparse
import builtins
import csv
import errno
import io
import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pandas as pd
import torch

from fcbench.measure import run
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.results import table
from fcbench.training.options import Budget

KINDS = ("moment", "kill", "full", "two")
COLUMNS = ["point", "metric", "status", "value", "ci_low", "ci_high", "n_bytes", "n_samples", "checkpoint_sha256"]
"""What determines a row; times, and the run that wrote it, may differ."""
LIMIT_S = 300.0
SUITE = Suite(
    codecs=("uniform", "factorized"),
    params={"uniform": ({"bits": 3},), "factorized": ({"lmbda": 0.3}, {"lmbda": 2.0})},
    encoders=("hiera_nano",),
    tasks=("depth", "segmentation"),
    weights="random",
    n_train=8,
    n_test=4,
    image_size_px=(32, 32),
    budget=Budget(task_steps=2, task_batch=4, codec_steps=2, width=32),
)


class Layer:
    """Counts writes, renames and fsyncs of this process, and acts at one of them."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.n, self._at, self._act = 0, at, act
        for name in ("fsync", "replace", "rename"):
            setattr(os, name, self._counted(getattr(os, name)))
        opened = builtins.open
        builtins.open = io.open = self._opening(opened)

    def count(self) -> None:
        """One more operation."""
        self.n += 1
        if self.n == self._at:
            self._act()

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            self.count()
            return call(*args, **named)

        return counted

    def _opening(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        def opening(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            found = opened(file, mode, *args, **named)
            return _Counting(found, self.count) if set(mode) & set("wax+") else found

        return opening


class _Counting:
    """A file whose writes are counted."""

    def __init__(self, file: Any, count: Callable[[], None]) -> None:
        self._file, self._count = file, count

    def write(self, data: Any) -> Any:
        """Write, after counting; half of it is there where the process is killed meanwhile."""
        self._count()
        return self._file.write(data)

    def __enter__(self) -> _Counting:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """Raise what a disk without room raises."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---------------------------------------------------------------------------------------------- a run
def start(out: Path, cache: Path, at: int = 0, act: Callable[[], None] = kill, tell: Path | None = None) -> int:
    """Fork a run. `at`: number of the operation at which it acts; 0 for none. `tell`: gets the number of operations."""
    pid = os.fork()
    if pid == 0:
        _measure(out, cache, at, act, tell)
    return pid


def _measure(out: Path, cache: Path, at: int, act: Callable[[], None], tell: Path | None) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        layer = Layer(at, act)
        run.measure(open_study(SUITE, cache, torch.device("cpu")), out)
        if tell:
            tell.write_text(str(layer.n))
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Exit status of a run. Raises TimeoutError after `LIMIT_S`."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a run took more than {LIMIT_S:g} s")


def rows(out: Path) -> pd.DataFrame:
    """What determines the rows of a folder, in one order."""
    return table.load(out)[COLUMNS].sort_values(["point", "metric"]).reset_index(drop=True)


def left(folder: Path) -> list[str]:
    """Files of a results folder or a cache by name, locks left out: of a run left alone there are these and no more."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(n for n in names if not n.endswith(".lock"))


class Trials:
    """Trials against a run that was left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder, began = folder, time.monotonic()
        out, cache = folder / "alone", folder / "alone-cache"
        assert ended(start(out, cache, tell=folder / "n")) == 0, "a run left alone failed"
        self.seconds, self.n_operations = time.monotonic() - began, int((folder / "n").read_text())
        self._rows, self._left, self._cached = rows(out), left(out), left(cache)

    def trial(self, kind: str, rng: Random) -> str:
        """Run, interrupt, run again. Returns what differs then; nothing where nothing does."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            out, cache = Path(name) / "out", Path(name) / "cache"
            at = rng.randrange(1, self.n_operations + 1)
            if kind == "moment":
                self._killed_at_a_moment(start(out, cache), rng)
            elif kind == "two":
                other = start(Path(name) / "other", cache)
                self._killed_at_a_moment(start(out, cache), rng)
                if (code := ended(other)) != 0:
                    return f"the other run on the cache ended with {code}"
                if not rows(Path(name) / "other").equals(self._rows):
                    return "rows of the other run on the cache differ"
            else:
                ended(start(out, cache, at, kill if kind == "kill" else full))
            if (code := ended(start(out, cache))) != 0:
                return f"{kind} at operation {at}: started again, it ended with {code}"
            return self._difference(out, cache, f"{kind} at operation {at}")

    def _killed_at_a_moment(self, pid: int, rng: Random) -> None:
        time.sleep(rng.random() * self.seconds)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _difference(self, out: Path, cache: Path, what: str) -> str:
        if not rows(out).equals(self._rows):
            return f"{what}: other rows"
        for found, expected in ((left(out), self._left), (left(cache), self._cached)):
            if found != expected:
                more, fewer = set(found) - set(expected), set(expected) - set(found)
                return f"{what}: surplus files {sorted(more)}, missing ones {sorted(fewer)}"
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run trials of every kind in turn; the exit status is 1 where one differed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="trials [20]")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these (repeatable)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long [60]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for crash.csv")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable()
    kinds = options.kind or KINDS
    done, wrong, began = Counter[str](), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fcbench-crash-") as name:
        trials = Trials(Path(name))
        print(f"a run left alone: {trials.seconds:.1f} s, {trials.n_operations} operations", flush=True)
        for number in range(options.kills):
            if time.monotonic() - began > 60 * options.minutes:
                break
            kind = kinds[number % len(kinds)]
            difference = trials.trial(kind, Random(f"{options.seed}:{number}"))
            done[kind] += 1
            if difference:
                wrong[kind] += 1
                print(f"trial {number}: {difference}", flush=True)
            if options.out:
                _write(options.out / "crash.csv", done, wrong)
    print(f"{sum(done.values())} trials, {sum(wrong.values())} differed")
    return int(bool(wrong))


def _write(path: Path, done: Counter[str], wrong: Counter[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["kind", "trials", "differed"])
        writer.writerows([kind, done[kind], wrong[kind]] for kind in KINDS)


if __name__ == "__main__":
    sys.exit(main())
