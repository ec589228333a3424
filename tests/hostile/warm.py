"""A warm process that has imported fcbench and forks a child per command, within limits of time and memory.

It is a process of its own, of one thread: a fork of one with running thread pools may hang.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 1 << 30
"""Address space that a command may take beyond that of the warm process."""
TIMED_OUT = "TIMED OUT"


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, negative for a signal, and what it printed on both streams."""

    code: int
    output: str


class Warm:
    """The warm process, from the side of the tests."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def __call__(self, args: list[str], cwd: Path, *, seconds: float = 30, work: bool = True, **limits: int) -> Outcome:
        """Run ``fcbench ARGS`` in a folder.

        Args:
            work: False ends verbs that measure before they open any data.
            limits: further ones of the operating system, by name: ``RLIMIT_FSIZE=1000``.
        """
        assert self._process.stdin and self._process.stdout
        asked = {"args": args, "cwd": str(cwd), "seconds": seconds, "work": work, "limits": limits}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


# ------------------------------------------------------------------------------------------- the process
def serve() -> None:
    """Answer requests until the standard input ends."""
    _import_everything()
    memory = MEMORY_BYTES + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for line in sys.stdin:
        asked = json.loads(line)
        asked["limits"].setdefault("RLIMIT_AS", memory)
        print(json.dumps(_forked(asked)), flush=True)


def _import_everything() -> None:
    import torch

    from fcbench.cli.main import VERBS

    torch.set_num_threads(1)
    modules = [f"fcbench.cli.{verb.replace('-', '_')}" for verb in VERBS]
    modules += ["fcbench.cli.examine", "fcbench.measure.run", "fcbench.measure.cross_neck", "fcbench.analysis.results"]
    modules += ["fcbench.reports.curves_figure", "fcbench.reports.cost_figure", "fcbench.encoders.hiera_nano"]
    modules += ["fcbench.codecs.uniform", "fcbench.codecs.hyperprior", "fcbench.transmit.images", "matplotlib.pyplot"]
    for module in modules:
        importlib.import_module(module)


def _forked(asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            _child(asked, output.fileno())
        status = _wait(pid, time.monotonic() + asked["seconds"])
        output.seek(0)
        text = output.read().decode(errors="replace")
    if status is None:
        return {"code": -signal.SIGKILL, "output": text + TIMED_OUT}
    return {"code": os.waitstatus_to_exitcode(status), "output": text}


def _wait(pid: int, deadline: float) -> int | None:
    """Status of a child; None for one that was killed at the deadline with all that it started."""
    pause = 0.001
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _child(asked: dict[str, Any], output: int) -> NoReturn:
    """Become the command."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(asked["cwd"])
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, limit in asked["limits"].items():
            resource.setrlimit(getattr(resource, name), (limit, limit))
        code = _run(asked["args"], asked["work"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(args: list[str], work: bool) -> int:
    """Exit status of the command; a traceback goes where Python would print it."""
    from fcbench.cli.main import main

    if not work:
        _stop_before_work()
    try:
        main(args, prog_name="fcbench")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _stop_before_work() -> None:
    from fcbench.cli import examine
    from fcbench.core.errors import FcbenchError
    from fcbench.measure import study

    def stop(*args: Any, **named: Any) -> NoReturn:
        raise FcbenchError("here the work would begin")

    study.open_study = study.open_data = stop
    examine._hub = lambda: examine.Check("hub", False, "not asked", False)


if __name__ == "__main__":
    serve()
