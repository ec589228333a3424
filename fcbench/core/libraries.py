"""The code that computes features and trains: libraries by version, files by hash. Part of the keys of the cache.

Versions are exact, without the build label (``+cpu``): patch releases have fixed wrong results, while builds of one
release differ only by rounding, as devices do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcbench.core.features import Encoder

PACKAGE = Path(__file__).resolve().parents[1]
NUMERIC = ("torch", "torchvision", "timm", "sam2", "compressai", "transformers")
"""Distributions that compute features and train."""


@cache
def full_version(name: str) -> str:
    """Installed version of a distribution with its build label; empty if it is not installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return ""


def version(name: str) -> str:
    """Installed version of a distribution; empty if it is not installed."""
    return full_version(name).partition("+")[0]


def installed() -> dict[str, str]:
    """Versions of those of `NUMERIC` that are installed."""
    return {name: version(name) for name in NUMERIC if version(name)}


def code_of(encoder: Encoder) -> dict[str, str]:
    """The code that computes an encoder's features: torch, and the classes of the encoder and of its modules.

    Returns distribution -> version; for fcbench and plug-in files, module -> hash of its file, including the modules
    of the same room that it imports from.
    """
    things: list[object] = [encoder, *encoder.module.modules()]
    while (wrapped := getattr(things[0], "wrapped", None)) is not None:
        things.insert(0, wrapped)
    kinds = dict.fromkeys(base for thing in things for base in type(thing).__mro__)
    names = {"torch", *(kind.__module__ for kind in kinds if not getattr(kind, "_is_protocol", False))}
    versions: dict[str, str] = {}
    for name in names:
        top = name.partition(".")[0]
        if top == PACKAGE.name:
            versions |= code_in(".".join(name.split(".")[:2]), sys.modules[name])
        elif version(top):
            versions[top] = version(top)
        elif top not in sys.stdlib_module_names:
            versions[name] = _hash(name)
    return dict(sorted(versions.items()))


@cache
def code_in(room: str, module: ModuleType) -> dict[str, str]:
    """The modules of a room of fcbench that a module takes classes, functions or modules from, recursively, and itself
    if it is one: name -> hash of its file. Computed once per process."""
    seen: dict[str, str] = {}
    new = [module]
    while new:
        seen |= {m.__name__: _hash(m.__name__) for m in new if m.__name__.startswith(f"{room}.")}
        used = {_module_of(value) for m in new for value in vars(m).values()}
        new = [sys.modules[name] for name in sorted(used - set(seen)) if name.startswith(f"{room}.")]
    return seen


def _module_of(value: object) -> str:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return name if isinstance(name, str) else ""


def changed(made_by: Mapping[str, str]) -> list[str]:
    """What has changed since something was made: ``torch 2.8.0``, or the module's name. Modules of plug-in files, which
    may be missing now, do not count.

    >>> changed({"torch": version("torch")})
    []
    """
    names = []
    for name, then in made_by.items():
        if name.startswith(f"{PACKAGE.name}."):
            names += [name] if _hash_of(module_file(PACKAGE, name.split(".")[1:])) != then else []
        elif "." not in name and version(name) not in ("", then):
            names.append(f"{name} {then}")
    return names


def module_file(package: Path, parts: Sequence[str]) -> Path:
    """The file of a module in a package's folder, or its folder's ``__init__``."""
    path = package.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _hash(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    return _hash_of(Path(file)) if file else ""


@cache
def _hash_of(file: Path) -> str:
    with suppress(OSError):
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return ""
