"""Provenance of numbers: versions, command line, machine, commit, time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = (
    "fcbench numpy torch torchvision timm compressai sam2 constriction pandas pyarrow scipy bjontegaard "
    "pycocotools pycocoevalcap"
).split()
"""Distributions whose versions are recorded."""


def versions() -> dict[str, str]:
    """Return the installed versions of Python and of `PACKAGES`, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def utc_now() -> str:
    """Return the time as ``2025-01-31T12:00:00Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def portable(argument: str) -> str:
    """Strip the machine's folders from a command-line argument: an absolute path becomes its last part.

    >>> portable("/some/where/camvid"), portable("results/camvid"), portable("--quick")
    ('camvid', 'results/camvid', '--quick')
    """
    return Path(argument).name if os.path.isabs(argument) else argument


def record(suite: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run: versions, command line, machine, time, suite."""
    return {
        "utc": utc_now(),
        "command": [portable(arg) for arg in sys.argv],
        "versions": versions(),
        "machine": {"system": platform.platform(), "n_cores": os.cpu_count()},
        "suite": dict(suite),
    }


@cache
def commit() -> str:
    """Return the package's git commit, with ``-dirty`` where files differed from it; empty if it is not known.

    A build holds its commit in ``commit.txt`` (see ``setup.py``); a checkout is asked for it.
    """
    package = Path(__file__).resolve().parents[1]
    built = package / "commit.txt"
    if built.exists():
        return built.read_text(encoding="utf-8").strip()

    def git(*args: str) -> str:
        command = ["git", "-C", str(package), *args]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if git("ls-files", "--full-name", "__init__.py") != "fcbench/__init__.py":  # in no checkout of fcbench
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except OSError:  # no git on this machine
        return ""
