"""The public API: `import fcbench` is light, and every public name is there for people, IDEs and type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import fcbench

ROOT = Path(fcbench.__file__).resolve().parents[1]
COMMITTED = ROOT / "results" / "scenes"


def run_fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_public_name_is_there() -> None:
    for name in fcbench.__all__:
        assert getattr(fcbench, name).__name__ == name
        assert name in dir(fcbench)
    assert sorted(fcbench.__all__) == fcbench.__all__


def test_type_checkers_see_every_lazy_name() -> None:
    tree = ast.parse(Path(fcbench.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fcbench.")
        for alias in node.names
    }
    assert seen == fcbench._LAZY


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fcbench' has no attribute 'codec'"):
        getattr(fcbench, "codec")
    assert not hasattr(fcbench, "codec")


def test_no_room_has_the_name_of_a_public_function() -> None:
    rooms = {p.parent.name for p in Path(fcbench.__file__).parent.glob("*/__init__.py")}
    assert not rooms & set(fcbench.__all__)


def test_importing_fcbench_imports_nothing_else() -> None:
    code = "import sys; import fcbench; print([m for m in sys.modules if m.startswith(('fcbench.', 'numpy', 'torch'))])"
    assert run_fresh(code) == "[]"


def test_reading_and_drawing_import_no_torch() -> None:
    code = (
        "import sys, fcbench\n"
        f"results = fcbench.load({str(COMMITTED)!r})\n"
        "fcbench.plot(results); fcbench.Suite(); fcbench.Budget()\n"
        "print('torch' in sys.modules)"
    )
    assert run_fresh(code) == "False"


def test_committed_results_are_compared_and_drawn(tmp_path: Path) -> None:
    results = fcbench.load(COMMITTED)
    assert isinstance(results, fcbench.Results) and len(results.rates) == 260
    assert isinstance(fcbench.compare(results, anchor="uniform"), pd.DataFrame)
    with pytest.raises(fcbench.FcbenchError, match="sam2_mini"):
        fcbench.cost(results, "hiera_nano", "sam2_mini")
    assert isinstance(fcbench.plot(results, tmp_path / "curves.png", tasks=["depth"]), Figure)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(fcbench.FcbenchError, match="unknown task 'height'"):
        fcbench.plot(results, tasks=["height"])


def test_run_refuses_what_a_suite_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(fcbench.FcbenchError, match="unknown codec 'hyperprio'"):
        fcbench.run(codecs=["hyperprio"], out=tmp_path)
    with pytest.raises(fcbench.FcbenchError, match="unknown field of Suite .codec.. Did you mean .codecs"):
        fcbench.run(codec="hyperprior", out=tmp_path)
