"""Kill a run anywhere, or take its disk away: does the same run, started again, give the rows of one left alone?

    python -m benchmarks.crash --kills 200 --kind moment --seed 1 --out results/trust

Trials of a small suite in forked processes, each in a fresh folder and cache:

``moment``
    kills (SIGKILL) at a random moment.
``kill``, ``full``, ``readonly``
    act at a write, rename or fsync, another one in each trial until all had their turn: kill; raise ENOSPC there and
    ever after; take the right to write from the whole cache, which binds this process although it may be root's.
``cache``
    lets two runs share a cache and kills one, or neither.
``folder``
    starts a second run in the same results folder: it is refused, or finds all done.

A run that was not killed must have ended by itself, with rows or an error of one line. Then it is started again, and
all columns but times, and the files that are left, with their contents, are compared with those of a run left alone.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import errno
import io
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pandas as pd
import torch

from benchmarks._scratch import scratch
from fcbench.core.cache import file_digest
from fcbench.core.errors import FcbenchError
from fcbench.data.scenes import chunks
from fcbench.features import feature_set
from fcbench.measure import run
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.results import table
from fcbench.training import loop
from fcbench.training.options import Budget

KINDS = ("moment", "kill", "full", "readonly", "cache", "folder")
TIMES = [
    *("encode_ms", "decode_ms", "peak_mb", "encoder_ms", "neck_ms", "head_ms"),
    *("task_seconds", "codec_seconds", "utc", "run"),
]
"""Columns that may differ."""
EXACT = (".npy", ".parquet", ".safetensors", ".json")
"""Files of the cache and of the samples that must have the same contents."""
DONE, REFUSED, BROKEN = 0, 1, 2
"""How a run ends: by itself, with an error of one line, in any other way."""
SAID = "said.txt"
"""What a trial's runs print, beside their folders."""
LIMIT_S = 900.0
SUITE = Suite(
    codecs=("uniform", "factorized"),
    params={"uniform": ({"bits": 3},), "factorized": ({"lmbda": 0.3}, {"lmbda": 2.0})},
    encoders=("hiera_nano",),
    tasks=("depth", "segmentation"),
    split_point="stage1",  # of the fewest channels
    weights="random",
    n_train=8,
    n_test=4,
    image_size_px=(32, 32),
    budget=Budget(task_steps=3, task_batch=4, codec_steps=3, width=32),
)


class Layer:
    """Counts writes, renames and fsyncs of this process; from number `at` on, it acts at each. `at`: 0 for never."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.n, self._at, self._act = 0, at, act
        for name in ("fsync", "replace", "rename"):
            setattr(os, name, self._counted(getattr(os, name)))
        opened = builtins.open
        builtins.open = io.open = self._opening(opened)

    def count(self, before: Callable[[], Any] = lambda: None) -> None:
        """One more operation. `before`: comes before the act."""
        self.n += 1
        if self._at and self.n >= self._at:
            before()
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

    def __init__(self, file: Any, count: Callable[[Callable[[], Any]], None]) -> None:
        self._file, self._count = file, count

    def write(self, data: Any) -> Any:
        """Count, then write; where that acts, half of the data is on the disk already."""
        done, data = 0, data if isinstance(data, str) else memoryview(data).cast("B")

        def half() -> None:
            nonlocal done
            done = self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._count(half)
        return done + self._file.write(data[done:])

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


def bound_by_modes() -> None:
    """From now on the modes of files bind this process, also root's: drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    version, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(version, data) == 0:
        data[0] &= ~0b110
    if libc.capset(version, data) != 0:
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")


def modes(folder: Path, folders: int, files: int) -> None:
    """Set the modes of a folder and all that it holds."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(folders if path.is_dir() else files)


# ---------------------------------------------------------------------------------------------- a run
def start(out: Path, cache: Path, kind: str = "", at: int = 0, tell: Path | None = None) -> int:
    """Fork a run. `kind`, `at`: what happens at which operation. `tell`: gets the number of operations
    and the seconds of the processor."""
    pid = os.fork()
    if pid == 0:
        _measure(out, cache, kind, at, tell)
    return pid


def _measure(out: Path, cache: Path, kind: str, at: int, tell: Path | None) -> NoReturn:
    code = BROKEN
    try:
        os.setpgid(0, 0)
        said = os.open(out.parent / SAID, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for stream in (0, 1, 2):
            os.dup2(said, stream)
        if kind == "readonly":
            bound_by_modes()
        layer = Layer(at, {"full": full, "readonly": lambda: modes(cache, 0o555, 0o444)}.get(kind, kill))
        run.measure(open_study(SUITE, cache, torch.device("cpu")), out)
        if tell:
            tell.write_text(f"{layer.n} {time.process_time()}")
        code = DONE
    except FcbenchError as error:
        print(error)
        code = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Exit status of a run. Raises TimeoutError after `LIMIT_S`."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a run took more than {LIMIT_S:g} s")


def rows(out: Path) -> pd.DataFrame:
    """Rows of a folder in one order, without times."""
    return table.load(out).drop(columns=TIMES).sort_values(["point", "metric"]).reset_index(drop=True)


def left(folder: Path) -> dict[str, str]:
    """Files of a results folder or a cache by name, locks left out, with the digest of those that must be equal."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    exact = [p for p in found if p.suffix in EXACT and p.parent != folder]
    return {p.relative_to(folder).as_posix(): file_digest(p) if p in exact else "" for p in found}


class Trials:
    """Trials against a run that was left alone."""

    def __init__(self, folder: Path) -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            run.measure(open_study(SUITE, folder / "cache", torch.device("cpu")), folder / "out")  # imports all
        self._folder = folder
        out, cache = folder / "alone", folder / "alone-cache"
        assert ended(start(out, cache, tell=folder / "n")) == DONE, "a run left alone failed"
        n, seconds = (folder / "n").read_text().split()
        self.n_operations, self.seconds = int(n), float(seconds)
        self._rows, self._left, self._cached = rows(out), left(out), left(cache)

    def trial(self, kind: str, number: int, rng: Random) -> str:
        """Run, interrupt, run again. `number`: of the trial within its kind. Returns what differs; empty: nothing."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            out, cache, other = (Path(name) / part for part in ("out", "cache", "other"))
            at = Random(kind).sample(range(self.n_operations), self.n_operations)[number % self.n_operations] + 1
            if kind == "moment":
                self._killed_at_a_moment(start(out, cache), rng)
                wrong = ""
            elif kind == "cache":
                survives = start(other, cache)
                self._killed_at_a_moment(start(out, cache), rng)
                code = ended(survives)
                wrong = "" if code == DONE and rows(other).equals(self._rows) else f"the other run ended with {code}"
            elif kind == "folder":
                first = start(out, cache)
                self._wait(first, rng)
                second = start(out, cache)
                codes = {ended(first), ended(second)}
                wrong = "" if codes in ({DONE}, {DONE, REFUSED}) else f"two runs in a folder ended with {codes}"
            else:
                code = ended(start(out, cache, kind, at))
                modes(cache, 0o755, 0o644)
                expected = (-signal.SIGKILL,) if kind == "kill" else (DONE, REFUSED)
                wrong = "" if code in expected else f"it ended with {code}"
            if not wrong and (code := ended(start(out, cache))) != DONE:
                wrong = f"started again, it ended with {code}"
            wrong = wrong or self._difference(out, cache)
            return wrong and f"operation {at}: {wrong}; last words: {(Path(name) / SAID).read_text()[-500:]}"

    def _killed_at_a_moment(self, pid: int, rng: Random) -> None:
        self._wait(pid, rng)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _wait(self, pid: int, rng: Random) -> None:
        """Wait until a run has used a random share of the processor time that it needs, or has ended."""
        moment, state, used = rng.random() * self.seconds, "", 0.0
        while state != "Z" and used < moment:
            time.sleep(0.02)
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            state, used = fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _difference(self, out: Path, cache: Path) -> str:
        if not rows(out).equals(self._rows):
            return "other rows"
        for found, expected in ((left(out), self._left), (left(cache), self._cached)):
            if found != expected:
                return f"other files {sorted(name for name, _ in found.items() ^ expected.items())}"
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run trials of every kind in turn; the exit status is 1 where one differed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="trials, the kinds in turn [20]")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to go on with a seed [0]")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these (repeatable)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long [60]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for crash.csv; counts are added to those there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable()
    loop.CHECKPOINT_S, chunks.SIZE, feature_set.SHARD_SAMPLES = -1.0, 8, 4  # more files, in less time
    kinds = options.kind or KINDS
    done, wrong, began = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0), time.monotonic()
    before = _read(options.out / "crash.csv") if options.out else _table({}, {})
    with scratch("crash") as name:
        trials = Trials(Path(name))
        print(f"a run left alone: {trials.seconds:.1f} s of a core, {trials.n_operations} operations", flush=True)
        for number in range(options.first, options.first + options.kills):
            if time.monotonic() - began > 60 * options.minutes:
                break
            kind = kinds[number % len(kinds)]
            difference = trials.trial(kind, number // len(kinds), Random(f"{options.seed}:{number}"))
            done[kind] += 1
            if difference:
                wrong[kind] += 1
                print(f"trial {number}, {kind}: {difference}", flush=True)
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                _sum(before, _table(done, wrong)).to_csv(options.out / "crash.csv", index=False)
    seconds = (time.monotonic() - began) / max(1, sum(done.values()))
    print(f"{sum(done.values())} trials, {sum(wrong.values())} differed; {seconds:.1f} s each")
    return int(any(wrong.values()))


def _table(done: dict[str, int], wrong: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"kind": list(done), "trials": list(done.values()), "differed": list(wrong.values())})


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else _table({}, {})


def _sum(*tables: pd.DataFrame) -> pd.DataFrame:
    """Trials by kind, of all tables."""
    return pd.concat(tables).groupby("kind", sort=False, as_index=False).sum().astype({"trials": int, "differed": int})


if __name__ == "__main__":
    sys.exit(main())
