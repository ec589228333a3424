"""README: what it names exists, its versions are the code's, its Python runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import fcbench
from fcbench.cli.main import VERBS
from fcbench.core import registry
from fcbench.core.codecs import OperatingPoint
from fcbench.testing.codecs import SOURCE, make
from fcbench.testing.maps import TWO
from fcbench.transmit import checkpoint

ROOT = Path(fcbench.__file__).resolve().parents[1]
README = ROOT / "README.rst"

pytestmark = pytest.mark.skipif(not README.exists(), reason="needs the source tree")


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text(encoding="utf-8")


def test_lines_are_short(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 100


def test_what_it_names_exists(text: str) -> None:
    files = re.findall(r"(?:fcbench|tests|results|benchmarks)/[\w/.]+\w", text)
    assert len(files) > 10
    missing = [f for f in files if not (ROOT / f).exists()]
    assert not missing
    verbs = re.findall(r"^    fcbench ([a-z-]+)", text, re.MULTILINE)
    assert set(verbs) <= set(VERBS)


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_it_lists_every_plugin(kind: str, text: str) -> None:
    if kind == "label":  # one per task, under the task's name
        assert set(registry.built_in(kind)) == set(registry.built_in("task")) - {"features"}  # whose output they are
        return
    table = text.split("What is included\n---")[1].split("\n\n")[1]
    assert not [
        name for name in registry.built_in(kind) if f"``{name}``" not in table and f"``{name}:NAME``" not in table
    ]


def test_its_versions_are_those_of_the_code(text: str) -> None:
    rows = re.findall(r" (\d) +``(\w+)`` in ``([\w/.]+)``", text)
    assert len(rows) == 9
    for now, constant, file in rows:
        assert re.search(
            rf"^{constant} = {now}(  #.*)?$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE
        ), file


@pytest.mark.skipif(shutil.which("awk") is None, reason="needs awk")
def test_ci_finds_its_two_commands(text: str) -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (program,) = re.findall(r"awk .* '(.+)' README.rst", ci)
    for name, start in (("main-job", "pip install torch torchvision . "), ("tests", "pip install torch torchvision ")):
        command = ["awk", "-v", f"name=.. ci: {name}", program, str(README)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(start) and done.stdout.count("\n") == 1


def python_of(text: str, name: str) -> Iterator[str]:
    """Yield the lines of the code below the comment ``.. ci: NAME``."""
    lines = iter(text.splitlines())
    assert f".. ci: {name}" in lines and "::" in lines
    for line in lines:
        if line and not line.startswith("    "):
            return
        yield line[4:]


def test_its_python_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fewer scenes and with shorter training than ``quick`` takes."""
    code = "\n".join(python_of(text, "notebook"))
    assert "quick=True" in code and len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FCBENCH_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    exec(
        code.replace("quick=True", "quick=True, n_train=64, n_test=8, budget=fcbench.Budget(4, 8, codec_steps=4)"),
        names,
    )
    results = names["results"]
    assert isinstance(results, fcbench.Results)
    assert set(results.rates["codec"]) >= {"uniform", "hyperprior"} and (results.rates["status"] == "ok").all()
    assert (tmp_path / "curves.png").exists()
    tiny = fcbench.Suite("look", n_train=64, n_test=8, budget=fcbench.Budget(4, 8, codec_steps=4))
    again = fcbench.run(tiny, encoders="sam2_nano", tasks=["depth"], out="runs/look")
    pd.testing.assert_frame_equal(again.rates, results.rates)


@pytest.mark.slow
def test_a_codec_of_ones_own_takes_five_minutes(text: str, tmp_path: Path) -> None:
    """Line by line as the README says, scenes and all."""
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    programs = ("fcbench", "pytest")
    for name in programs:
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FCBENCH_CACHE": str(tmp_path / "cache"),
    }
    script, began = "\n".join(["set -e", *python_of(text, "own-codec")]), time.monotonic()
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 300
    assert re.search(r" passed", done.stdout) and "my_codec" in done.stdout
    rows = pd.read_csv(tmp_path / "runs/mine/rates.csv")
    assert set(rows.loc[rows["codec"] == "my_codec", "params"]) == {
        f'{{"step": {step}}}' for step in (6.0, 3.0, 1.5, 0.7, 0.3)
    }


def test_its_codec_codes_in_ten_lines(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "\n".join(python_of(text, "codec"))
    assert len([line for line in code.splitlines() if line]) <= 10
    point = OperatingPoint("hyperprior", {"lmbda": 2.0})
    checkpoint.save(tmp_path / "codec.safetensors", make("hyperprior", TWO, point.params), point, TWO, SOURCE)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    printed = capsys.readouterr().out
    assert "bytes True" in printed and all(s.name in printed for s in TWO)
