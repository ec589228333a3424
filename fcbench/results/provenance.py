"""Where numbers come from: versions, command line, machine, commit, time."""

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
    """Versions of Python and of the packages that matter, as installed; imports none of them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def utc_now() -> str:
    """``2025-01-31T12:00:00Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def portable(argument: str) -> str:
    """A command-line argument without the folders of one machine: of an absolute path, the name.

    >>> portable("/some/where/camvid"), portable("results/camvid"), portable("--quick")
    ('camvid', 'results/camvid', '--quick')
    """
    return Path(argument).name if os.path.isabs(argument) else argument


def record(suite: Mapping[str, Any]) -> dict[str, Any]:
    """Record of this run: versions, command line, machine, time, suite."""
    return {
        "utc": utc_now(),
        "command": [portable(arg) for arg in sys.argv],
        "versions": versions(),
        "machine": {"system": platform.platform(), "n_cores": os.cpu_count()},
        "suite": dict(suite),
    }


@cache
def commit() -> str:
    """Git commit of the package's checkout, with ``-dirty`` where its files differ; empty outside a checkout."""
    folder = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "__init__.py"):  # installed, perhaps inside another project's checkout
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except OSError:  # no git on this machine
        return ""
