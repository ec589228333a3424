"""Plug-ins: found by file name, imported only when asked for.

A file ``fcbench/codecs/hyperprior.py`` that sets ``PLUGIN`` is the codec ``hyperprior``; a plug-in with parts of its own
is a folder of that name. The folder ``shared`` holds code that several plug-ins of a room share.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcbench.core.errors import FcbenchError
from fcbench.core.kinds import LABEL

if TYPE_CHECKING:
    import torch

    from fcbench.core.features import Encoder

PACKAGE = Path(__file__).resolve().parents[1]
SHARED = "shared"

KINDS = {
    "dataset": "data",
    "encoder": "encoders",
    "codec": "codecs",
    "neck": "necks",
    "task": "tasks",
    "taskmodel": "taskmodels",
    "image": "images",
    "label": "labels",
}
"""Kind of plug-in -> its folder."""


def names(kind: str) -> list[str]:
    """Registered names of a kind, sorted. Imports none of them.

    >>> "hyperprior" in names("codec")
    True
    """
    folder = PACKAGE / KINDS[kind]
    files = [p.stem for p in folder.glob("*.py") if p.stem != "__init__"]
    folders = [p.parent.name for p in folder.glob("*/__init__.py") if p.parent.name != SHARED]
    return sorted(files + folders)


def get(kind: str, name: str) -> Any:
    """The ``PLUGIN`` of a name.

    Raises:
        FcbenchError: no such name; the message holds the nearest and all of them.
    """
    known = names(kind)
    if name not in known:
        raise FcbenchError(unknown(kind, name, known))
    return importlib.import_module(f"fcbench.{KINDS[kind]}.{name}").PLUGIN


def summary(kind: str, name: str) -> str:
    """First line of a plug-in's docstring. Does not import it."""
    folder = PACKAGE / KINDS[kind]
    file = folder / f"{name}.py"
    source = (file if file.exists() else folder / name / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not among the known ones, with the nearest match."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(known[:20]) + (f", ... ({len(known)} in all)" if len(known) > 20 else "")
    return f"unknown {what} {name!r}.{hint} Known: {shown}."


def coder_versions(kind: str, name: str) -> dict[str, str]:
    """Versions of the external coders of a plug-in. Raises `FcbenchError` where one is missing."""
    if (kind, name) == ("codec", LABEL):  # of one task or another
        return {}
    found: dict[str, str] = get(kind, name).versions()
    return found


def build_encoder(name: str, weights: str | None, device: torch.device) -> Encoder:
    """The encoder of ``NAME`` or ``NAME:VARIANT``."""
    family, _, variant = name.partition(":")
    encoder: Encoder = get("encoder", family).build(variant, weights, device)
    return encoder
