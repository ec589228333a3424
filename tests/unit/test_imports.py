"""The import table: each room says in its ``__init__`` what it may import, and imports just that."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fcbench
from fcbench.cli.main import VERBS
from fcbench.core import registry

ROOT = Path(fcbench.__file__).parent
ROOMS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
PLUGIN_ROOMS = sorted(registry.KINDS.values())

NO_TORCH = ("core", "results", "analysis", "reports")
"""Rooms that are loaded without torch."""


def imported(path: Path, root: Path = ROOT, running: bool = False) -> Iterator[str]:
    """Dotted names a file imports, anywhere in it; relative ones made absolute.

    Args:
        running: leave out what stands under ``if TYPE_CHECKING:``.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    if running:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped |= {id(n) for child in node.body for n in ast.walk(child)}
    package = ["fcbench", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def declared(room: str) -> set[str]:
    """The rooms that a room's ``__init__`` says it imports."""
    doc = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    line = re.search(r"^Imports: (.+)\.$", doc, re.MULTILINE)
    assert line, f"{room}/__init__.py has no line 'Imports: ...'"
    return set() if line[1] == "nothing" else set(line[1].split(", "))


def actual(room: str) -> set[str]:
    """The rooms that the files of a room import."""
    names = {i for path in (ROOT / room).rglob("*.py") for i in imported(path)}
    return {i.split(".")[1] for i in names if i.startswith("fcbench.")} & set(ROOMS) - {room}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_says(room: str) -> None:
    assert actual(room) == declared(room)


def test_rooms_are_in_floors() -> None:
    order = list(graphlib.TopologicalSorter({room: declared(room) for room in ROOMS}).static_order())
    assert order[0] == "core" and order.index("cli") > order.index("measure")


def test_every_module_is_in_a_room() -> None:
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {p.name for p in ROOT.iterdir() if p.is_dir()} - {"__pycache__", "weights"} == set(ROOMS)


def test_no_module_name_starts_with_an_underscore() -> None:
    assert not [p for p in ROOT.rglob("_*.py") if p.name not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("room", ROOMS)
def test_the_init_of_a_room_holds_no_code(room: str) -> None:
    body = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("room", PLUGIN_ROOMS)
def test_plugins_import_no_other_plugin(room: str) -> None:
    """What two plug-ins share is in the room's ``shared``."""
    names = set(registry.names(next(k for k, v in registry.KINDS.items() if v == room)))
    for path in (ROOT / room).rglob("*.py"):
        own = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        prefix = f"fcbench.{room}."
        others = {i.removeprefix(prefix).split(".")[0] for i in imported(path) if i.startswith(prefix)}
        assert not others & names - {own}, path


def test_the_parser_sees_every_form_of_import(tmp_path: Path) -> None:
    (tmp_path / "codecs").mkdir()
    file = tmp_path / "codecs" / "x.py"
    file.write_text(
        "import fcbench.a\nfrom fcbench import b\nfrom fcbench.c import C\nfrom .. import d\nfrom ..e import E\n"
        "from . import f\n"
        "def g():\n    import fcbench.h\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import fcbench.i\n"
    )
    seen = set(imported(file, tmp_path, running=True))
    assert {"fcbench.a", "fcbench.b", "fcbench.c.C", "fcbench.d", "fcbench.e.E"} < seen
    assert {"fcbench.codecs.f", "fcbench.h", "fcbench.i"} < seen
    assert "torch" not in seen and "torch" in set(imported(file, tmp_path))


@pytest.mark.parametrize("room", NO_TORCH)
def test_no_torch_in_the_source(room: str) -> None:
    roots = {i.split(".")[0] for path in (ROOT / room).rglob("*.py") for i in imported(path, running=True)}
    assert not roots & {"torch", "torchvision", "timm", "compressai"}


def loaded_after(code: str) -> set[str]:
    """Modules in a fresh process after running code."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_and_listing_imports_no_plugin_and_no_torch() -> None:
    loaded = loaded_after(
        "import fcbench\nfrom fcbench.core import registry\n[registry.names(k) for k in registry.KINDS]"
    )
    assert "fcbench.core.registry" in loaded and "torch" not in loaded
    assert not [m for m in loaded if m.startswith(tuple(f"fcbench.{room}." for room in PLUGIN_ROOMS))]


def test_analyses_and_help_import_no_torch() -> None:
    modules = [
        ".".join(["fcbench", *p.relative_to(ROOT).with_suffix("").parts])
        for room in NO_TORCH
        for p in (ROOT / room).rglob("*.py")
        if p.name != "__init__.py"
    ]
    modules += [f"fcbench.cli.{verb.replace('-', '_')}" for verb in (*VERBS, "main")]
    loaded = loaded_after("".join(f"import {m}\n" for m in modules))
    assert set(modules) < loaded and "torch" not in loaded


def test_a_learned_codec_imports_what_it_needs_of_compressai() -> None:
    """All of it takes seconds; whoever wants all of it still gets it."""
    known = "from fcbench.core import registry\nplugin = registry.get('codec', 'hyperprior')\nplugin.versions()"
    loaded = loaded_after(known)
    assert "compressai.entropy_models" in loaded and not {"compressai", "torch_geometric"} & loaded
    used = (
        "from fcbench.codecs.shared.transforms import IntegerBottleneck\nmodel = IntegerBottleneck(2)\n"
        "import compressai\nassert compressai.available_entropy_coders() == ['ans']\n"
        "assert isinstance(model, compressai.entropy_models.EntropyBottleneck) and compressai.zoo.image_models"
    )
    assert {"compressai", "torch_geometric"} < loaded_after(f"{known}\n{used}")
