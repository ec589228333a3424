"""Plug-ins: found by file name, imported only when asked for.

A file ``fcbench/codecs/hyperprior.py`` that sets ``PLUGIN`` is the codec ``hyperprior``. Files whose name starts
with an underscore are shared code, not plug-ins.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fcbench.types import FcbenchError

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
    folder = Path(__file__).parent / KINDS[kind]
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


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
    source = (Path(__file__).parent / KINDS[kind] / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not among the known ones, with the nearest match."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(known[:20]) + (f", ... ({len(known)} in all)" if len(known) > 20 else "")
    return f"unknown {what} {name!r}.{hint} Known: {shown}."
