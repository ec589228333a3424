"""Nothing that only Linux has, unguarded: read from the source, since no other system runs these tests."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fcbench
from fcbench.core.errors import FcbenchError

ROOT = Path(fcbench.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "crypt"}
CALLS = {"fork", "forkpty", "setsid", "killpg", "getpgid", "getuid", "geteuid", "getgid", "mkfifo", "nice", "uname"}
PATHS = ("/proc/", "/sys/", "/dev/", "/tmp", "/usr/", "/etc/", "/home/")
WORDS = ("prctl", "libc.so", "cgroup")

GUARDS = ("hasattr", "os.name", "sys.platform", "platform.system", "suppress(OSError)")
"""One of these stands in an `if`, `with` or assignment around what not every system has."""


def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def linux_only(node: ast.AST) -> str:
    """What a node uses that not every system has; "" for nothing."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        roots = {a.name.split(".")[0] for a in node.names} if isinstance(node, ast.Import) else {node.module or ""}
        return ", ".join(roots & MODULES)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
        return f"os.{node.attr}" if node.attr in CALLS or node.attr.startswith("sched_") else ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
        return node.value if node.value.startswith(PATHS) or any(w in node.value for w in WORDS) else ""
    return ""


def guarded(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a condition or handler around a node, or a name set by one in its function, asks what the system has."""
    while node in parents:
        node = parents[node]
        if isinstance(node, (ast.If, ast.IfExp)) and any(g in ast.unparse(node.test) for g in GUARDS):
            return True
        if isinstance(node, ast.With) and any(g in ast.unparse(i) for i in node.items for g in GUARDS):
            return True
        if isinstance(node, ast.FunctionDef):
            return any(isinstance(n, ast.Assign) and "hasattr(os" in ast.unparse(n) for n in ast.walk(node))
    return False


def unguarded(source: str) -> Iterator[str]:
    """Uses of what not every system has: "LINE: WHAT"."""
    tree = ast.parse(source)
    parents = parents_of(tree)
    docstrings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        what = linux_only(node)
        if what and node not in docstrings and not guarded(node, parents):
            yield f"{getattr(node, 'lineno', 0)}: {what}"


def without_encoding(source: str) -> Iterator[str]:
    """Texts that are read or written in the encoding of the system's locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg in ("encoding", None) for k in node.keywords):
            continue
        called = ast.unparse(node.func)
        mode = next((a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), "")
        if called.endswith((".read_text", ".write_text")) and called != "distribution.read_text":
            yield f"{node.lineno}: {ast.unparse(node)[:60]}"
        elif (called == "open" and "b" not in mode) or (called.endswith(".open") and mode in ("r", "w", "a")):
            yield f"{node.lineno}: {ast.unparse(node)[:60]}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_what_only_linux_has_is_guarded(file: Path) -> None:
    assert not list(unguarded(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_text_files_name_their_encoding(file: Path) -> None:
    assert not list(without_encoding(file.read_text(encoding="utf-8")))


def test_processes_are_spawned() -> None:
    """Windows has no other way, and a fork of a process with threads may hang."""
    calls = [
        ast.unparse(node)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    contexts = [c for c in calls if "get_context(" in c.partition("(")[0] + "("]
    assert contexts and all(c.endswith("get_context('spawn')") for c in contexts)
    pools = [c for c in calls if c.startswith("ProcessPoolExecutor(")]
    assert pools and all("context" in c for c in pools)


def test_without_compressai_one_line_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compressai.entropy_models", None)
    with pytest.raises(FcbenchError, match="pip install --no-deps compressai==1.2.8"):
        runpy.run_path(str(ROOT / "codecs" / "shared" / "entropy_models.py"))


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrusage",
        "os.fork()",
        "os.sched_getaffinity(0)",
        "open('/proc/meminfo')",
        "ctypes.CDLL('libc.so.6')",
    ],
)
def test_the_reader_sees_what_is_unguarded(source: str) -> None:
    assert list(unguarded(f"def f():\n    {source}"))
    assert not list(unguarded(f"def f():\n    if sys.platform == 'linux':\n        {source}"))


def test_the_reader_sees_missing_encodings() -> None:
    assert list(without_encoding("path.read_text()")) and list(without_encoding("open(path)"))
    assert list(without_encoding("path.open('w')")) and not list(without_encoding("path.open('rb')"))
    assert not list(without_encoding("path.write_text(text, encoding='utf-8')"))
