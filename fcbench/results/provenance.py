"""Provenance of numbers: versions, command line, machine, environment, commit, time."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from fcbench.core.libraries import full_version

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = (
    "fcbench numpy torch torchvision timm compressai sam2 constriction pandas pyarrow scipy bjontegaard "
    "pycocotools pycocoevalcap"
).split()
"""Distributions whose versions are recorded."""


def versions() -> dict[str, str]:
    """Return the installed versions of Python and of `PACKAGES`, without importing them."""
    by_name = {"python": platform.python_version()} | {name: full_version(name) for name in PACKAGES}
    return {name: version for name, version in by_name.items() if version}


def utc_now() -> str:
    """Return the time as ``2025-01-31T12:00:00Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def portable(argument: str) -> str:
    """Strip the machine's folders from a command-line argument: an absolute path becomes its last part, also behind the
    name of an option or of a data set.

    >>> portable("/some/where/camvid"), portable("results/camvid"), portable("--out=/some/where")
    ('camvid', 'results/camvid', '--out=where')
    >>> portable("imagenet1k:/some/where"), portable("timm:vit"), portable("https://host/file")
    ('imagenet1k:where', 'timm:vit', 'https://host/file')
    """
    named = re.fullmatch(r"([^/]*[:=])(/(?!/).*)", argument, re.DOTALL)
    name, path = named.groups() if named and not os.path.isabs(argument) else ("", argument)
    return name + (Path(path).name if os.path.isabs(path) else path)


def record(suite: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run: the request and everything around it that may change its numbers. Rows name its
    ``run``."""
    return {
        "run": secrets.token_hex(6),
        "utc": utc_now(),
        "command": [portable(arg) for arg in sys.argv],
        "versions": versions(),
        "packages": packages(),
        "commit": commit(),
        "diff": diff(),
        "environment": environment(os.environ),
        "machine": {"system": platform.platform(), "cpu": cpu_model(), "n_cores": os.cpu_count()},
        "suite": dict(suite),
    }


@cache
def packages() -> list[str]:
    """Return every installed distribution as ``pip freeze`` names it: ``NAME==VERSION``, or ``NAME @ git+URL@COMMIT``.
    One that was installed from a local folder has its version instead of the path."""
    by_name = {d.name: _requirement(d) for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return sorted(by_name.values(), key=str.lower)


def _requirement(distribution: importlib.metadata.Distribution) -> str:
    with suppress(ValueError, KeyError, TypeError):
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        source = origin["vcs_info"]
        return f"{distribution.name} @ {source['vcs']}+{origin['url']}@{source['commit_id']}"
    return f"{distribution.name}=={distribution.version}"


NUMERIC = ("OMP_", "KMP_", "MKL_", "OPENBLAS_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_", "TORCH_", "PYTORCH_")
"""Prefixes of environment variables that may change numbers."""


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may change numbers, and fcbench's own, without local folder names.

    >>> environment({"OMP_NUM_THREADS": "1", "FCBENCH_CACHE": "/some/where/cache", "HOME": "/home/me"})
    {'FCBENCH_CACHE': 'cache', 'OMP_NUM_THREADS': '1'}
    """
    return {k: portable(v) for k, v in sorted(variables.items()) if k.startswith((*NUMERIC, "FCBENCH_"))}


@cache
def cpu_model() -> str:
    """Return the model of the processor; its architecture if the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


MAX_DIFF_CHARACTERS = 100_000  # Length of a diff to keep


@cache
def commit() -> str:
    """Return the package's git commit, with ``-dirty`` if files differed from it; empty if unknown. A build holds its
    commit in ``commit.txt`` (see ``setup.py``); a checkout asks git."""
    built = PACKAGE / "commit.txt"
    if built.exists():
        return built.read_text(encoding="utf-8").strip()
    if not _in_checkout():
        return ""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return _git("rev-parse", "--short=12", "HEAD").decode().strip() + ("-dirty" if changed.strip() else "")


def diff() -> dict[str, Any] | None:
    """Return the package's uncommitted changes in a checkout; None if there are none, or it is not a checkout.
    Returns ``sha256`` and ``n_bytes`` of the whole diff, and its first `MAX_DIFF_CHARACTERS` as ``text``."""
    if (PACKAGE / "commit.txt").exists() or not _in_checkout():
        return None
    found = _git("diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".")
    if not found:
        return None
    text = found.decode(errors="replace")[:MAX_DIFF_CHARACTERS]
    return {"sha256": hashlib.sha256(found).hexdigest(), "n_bytes": len(found), "text": text}


def _in_checkout() -> bool:
    return _git("ls-files", "--full-name", "__init__.py").strip() == b"fcbench/__init__.py"


def _git(*arguments: str) -> bytes:
    """Output of a git command in the package's folder; empty if it fails or git is missing."""
    try:
        done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True)
    except OSError:
        return b""
    return done.stdout if done.returncode == 0 else b""
