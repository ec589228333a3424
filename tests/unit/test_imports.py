"""The import graph: data flows one way, imports too, and what prints or draws never waits for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fcbench

ROOT = Path(fcbench.__file__).parent

ROOMS = ("data", "encoders", "codecs", "necks", "tasks")
"""Folders of plug-ins: they know the nouns and themselves, nothing of each other."""

LAYERS = (
    ("types", "ratepoint", "registry", "__init__"),
    ("rate", "curves", "bitstream", "results", "plot", "series", "resampled", "information", *ROOMS),
    ("fit", "features", "pipeline"),
    ("cli", "__main__"),
)
"""A module imports from its own layer and those before it. Other modules at the top of the package are free, but for
what the layers below `cli` may not import: `cli` itself."""

NO_TORCH = ("types", "registry", "rate", "curves", "results", "plot", "series", "resampled", "compare")


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def unit(path: Path) -> str:
    """``codecs`` for a file of that room, else the module's own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path, running: bool = False) -> Iterator[str]:
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
    package = ["fcbench", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            # "from fcbench import plot" imports a module, "from fcbench.plot import save" a name of one
            yield from (f"{base}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """Units of the package that a file imports."""
    names = {i.split(".")[1] for i in imported(path) if i.startswith("fcbench.")}
    return {n for n in names if (ROOT / n).is_dir() or (ROOT / f"{n}.py").exists()}


def layer(name: str) -> int | None:
    return next((i for i, names in enumerate(LAYERS) if name in names), None)


def violations(name: str, imports: set[str]) -> list[str]:
    """What a unit imports and may not."""
    mine = layer(name)
    if mine == 0:
        allowed = {"types"} if name == "registry" else set()
        return sorted(imports - allowed)
    bad = set()
    for other in imports - {name}:
        theirs = layer(other)
        later = theirs is not None and theirs > (len(LAYERS) - 2 if mine is None else mine)
        if later or (other in ROOMS and mine == 1):
            bad.add(other)
    return sorted(bad)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    assert violations(unit(path), ours(path)) == []


@pytest.mark.parametrize(
    ("name", "imports", "bad"),
    [
        ("types", {"registry"}, ["registry"]),
        ("registry", {"types"}, []),
        ("codecs", {"types", "registry", "codecs", "rate"}, []),
        ("codecs", {"data", "encoders", "tasks", "types"}, ["data", "encoders", "tasks"]),
        ("tasks", {"data"}, ["data"]),
        ("plot", {"results", "curves", "codecs"}, ["codecs"]),
        ("curves", {"pipeline", "fit"}, ["fit", "pipeline"]),
        ("pipeline", {"fit", "codecs", "results"}, []),
        ("pipeline", {"cli"}, ["cli"]),
        ("helper", {"cli", "fit"}, ["cli"]),
    ],
)
def test_the_rule_finds_what_it_forbids(name: str, imports: set[str], bad: list[str]) -> None:
    assert violations(name, imports) == bad


def test_the_parser_sees_every_form_of_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "codecs").mkdir()
    file = tmp_path / "codecs" / "x.py"
    file.write_text(
        "import fcbench.a\nfrom fcbench import b\nfrom fcbench.c import C\nfrom .. import d\nfrom ..e import E\n"
        "from . import f\n"
        "def g():\n    import fcbench.h\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import fcbench.i\n"
    )
    seen = set(imported(file, running=True))
    assert {"fcbench.a", "fcbench.b", "fcbench.c.C", "fcbench.d", "fcbench.e.E"} < seen
    assert {"fcbench.codecs.f", "fcbench.h", "fcbench.i"} < seen
    assert "torch" not in seen and "torch" in set(imported(file))


@pytest.mark.parametrize("name", NO_TORCH)
def test_no_torch_in_the_source(name: str) -> None:
    roots = {i.split(".")[0] for i in imported(ROOT / f"{name}.py", running=True)}
    assert not roots & {"torch", "torchvision", "timm", "compressai"}


def loaded_after(code: str) -> set[str]:
    """Modules in a fresh process after running code."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_and_listing_imports_no_plugin_and_no_torch() -> None:
    loaded = loaded_after("import fcbench\nfrom fcbench import registry\n[registry.names(k) for k in registry.KINDS]")
    assert "fcbench.registry" in loaded and "torch" not in loaded
    rooms = tuple(f"fcbench.{room}." for room in ROOMS)
    assert not [m for m in loaded if m.startswith(rooms)]


def test_drawing_imports_no_torch() -> None:
    loaded = loaded_after("".join(f"import fcbench.{n}\n" for n in NO_TORCH))
    assert {f"fcbench.{n}" for n in NO_TORCH} < loaded and "torch" not in loaded
