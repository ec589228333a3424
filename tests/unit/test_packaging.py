"""Packaging: what an installed fcbench knows of itself."""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fcbench

ROOT = Path(fcbench.__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree"),
]


def git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=fcbench", "-c", "user.email=fcbench@localhost"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(folder: Path) -> str:
    """Make a folder a repository of what is in it. Returns the commit as rows name it."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return git(folder, "rev-parse", "--short=12", "HEAD")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The source tree, without weights and history, inside another project's checkout."""
    source = tmp_path / "third_party" / "fcbench"
    source.mkdir(parents=True)
    for name in ("setup.py", "setup.cfg", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "fcbench", source / "fcbench", ignore=ignored)
    (tmp_path / "other.py").touch()
    committed(tmp_path)
    return source


def commit_of_wheel(source: Path) -> str:
    """Build a wheel, unpack it inside the other project's checkout, and ask it for its commit."""
    wheels, site = source / "wheels", source.parent / "site"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(wheels), str(source)], check=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    code = "import fcbench.results.provenance as p; print(p.__file__, p.commit(), sep='\\n')"
    env = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=site, env=env, capture_output=True, text=True, check=True)
    file, commit = done.stdout.splitlines()
    assert Path(file).is_relative_to(site)
    return commit


@pytest.mark.parametrize("state", ["", "-dirty"])
def test_a_wheel_knows_the_commit_it_was_built_from(source: Path, state: str) -> None:
    head = committed(source)
    if state:
        with (source / "fcbench" / "__init__.py").open("a", encoding="utf-8") as file:
            file.write("# changed\n")
    assert commit_of_wheel(source) == head + state
    assert not (source / "fcbench" / "commit.txt").exists()


def test_a_wheel_built_without_history_names_no_commit(source: Path) -> None:
    """Not even the commit of the other project's checkout that it was built in."""
    stale = source / "build" / "lib" / "fcbench" / "codecs" / "removed.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert commit_of_wheel(source) == ""
    assert not (source.parent / "site" / "fcbench" / "codecs" / "removed.py").exists()


def test_a_checkout_is_asked_for_its_commit(source: Path) -> None:
    head = committed(source)
    file = str(source / "fcbench" / "results" / "provenance.py")
    assert runpy.run_path(file)["commit"]() == head
    (source / "README.rst").write_text("changed", encoding="utf-8")
    assert runpy.run_path(file)["commit"]() == head
    (source / "fcbench" / "__init__.py").write_text("changed", encoding="utf-8")
    assert runpy.run_path(file)["commit"]() == f"{head}-dirty"


def test_the_diff_of_a_changed_checkout_is_kept(source: Path) -> None:
    committed(source)
    file = str(source / "fcbench" / "results" / "provenance.py")
    assert runpy.run_path(file)["diff"]() is None
    (source / "README.rst").write_text("changed", encoding="utf-8")
    assert runpy.run_path(file)["diff"]() is None
    (source / "fcbench" / "__init__.py").write_text("changed = 1\n" * 20_000, encoding="utf-8")
    found = runpy.run_path(file)["diff"]()
    whole = subprocess.run(["git", "-C", str(source), "diff", "HEAD", "--", "fcbench"], capture_output=True).stdout
    assert found["sha256"] == hashlib.sha256(whole).hexdigest() and found["n_bytes"] == len(whole) > 200_000
    assert found["text"] == whole.decode()[:100_000]
