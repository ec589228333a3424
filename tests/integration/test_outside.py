"""The examples from outside the package, installed and as a file: run, encoded, decoded in fresh processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from fcbench.core import registry
from fcbench.results import table
from fcbench.transmit.checkpoint import load as load_checkpoint

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "benchmarks" / "examples"
TINY = (
    "--encoder hiera_nano --weights random --device cpu --threads 1 --n-train 32 --n-test 8 --task-steps 4 --batch 8"
).split()

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``my_codec.py``, and in ``site`` what pip leaves of a distribution of the examples."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(EXAMPLES / "zlib_codec.py", folder / "my_codec.py")
    package, info = folder / "site" / "toy", folder / "site" / "toy-1.2.dist-info"
    for part in (package, info):
        part.mkdir(parents=True)
    (package / "__init__.py").touch()
    groups = {"codecs": "zlib_codec", "datasets": "dots", "tasks": "counting"}
    for name in groups.values():
        shutil.copy(EXAMPLES / f"{name}.py", package)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.2\n")
    entries = (f"[fcbench.{group}]\n{name} = toy.{name}:PLUGIN\n" for group, name in groups.items())
    (info / "entry_points.txt").write_text("\n".join(entries))
    return folder


@pytest.fixture(scope="module")
def fresh(outside: Path) -> Call:
    """The command line in a process of its own, in the folder, with the distribution installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(outside / "site")])}

    def call(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fcbench", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=outside, env=environment, check=False)

    return call


@pytest.fixture(scope="module")
def finished(outside: Path, fresh: Call) -> Path:
    """A run with data set, task and codec of the distribution, and the codec of the file."""
    plugins = ("--dataset", "dots", "--task", "counting", "--codec", "./my_codec.py", "--codec", "zlib_codec")
    done = fresh("run", *plugins, *TINY, "--keep-streams", "--cache-dir", outside / "cache", "--out", "run")
    assert done.returncode == 0, done.stderr
    return outside / "run"


def checkpoint_of(codec: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a codec of the run."""
    monkeypatch.syspath_prepend(str(finished.parent / "site"))
    monkeypatch.setattr(registry, "_files", {})
    registry._installed.cache_clear()
    found = [f for f in sorted((finished / "streams").glob("*.safetensors")) if load_checkpoint(f).point.codec == codec]
    registry._installed.cache_clear()
    return found[0]


def test_rows_name_plugins_and_where_they_come_from(finished: Path) -> None:
    rows = table.load(finished)
    assert set(rows.status) == {"ok"} and set(rows.task) == {"counting"} and set(rows.dataset) == {"dots"}
    coded = rows[rows.kind == "coded"]
    assert set(coded.codec) == {"my_codec", "zlib_codec"}
    versions = coded.set_index("codec").versions.map(json.loads)
    mine, installed = versions["my_codec"].iloc[0], versions["zlib_codec"].iloc[0]
    assert mine["my_codec.py"].startswith("sha256:") and mine["toy"] == installed["toy"] == "1.2"
    assert "my_codec.py" not in installed
    sizes = coded.groupby("codec").n_bytes.apply(sorted)
    assert np.allclose(sizes["my_codec"], sizes["zlib_codec"], atol=2)  # the length of the name


def test_encode_and_decode_find_a_file_again(
    fresh: Call, finished: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of("my_codec", finished, monkeypatch)
    Image.fromarray(np.arange(96 * 96 * 3, dtype=np.uint8).reshape(96, 96, 3)).save(outside / "photo.png")
    same = ("--checkpoint", checkpoint)
    coded = fresh("encode", "photo.png", *same, "--weights", "random", "--device", "cpu", "-o", "photo.fcb")
    assert coded.returncode == 0, coded.stderr
    decoded = fresh("decode", "photo.fcb", *same, "-o", "features.safetensors")
    assert decoded.returncode == 0, decoded.stderr
    (features,) = load_file(outside / "features.safetensors").values()
    assert len(features) == 1


def test_decode_finds_an_installed_codec_again(
    fresh: Call, finished: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of("zlib_codec", finished, monkeypatch)
    decoded = fresh("decode", checkpoint.with_suffix(".fcb"), "-o", "installed.safetensors")
    assert decoded.returncode == 0, decoded.stderr
    (features,) = load_file(outside / "installed.safetensors").values()
    assert len(features) == 8


def test_an_edited_codec_is_refused_by_name(
    fresh: Call, finished: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of("my_codec", finished, monkeypatch)
    edited = outside / "edited" / "my_codec.py"
    edited.parent.mkdir()
    edited.write_text((EXAMPLES / "zlib_codec.py").read_text() + "# edited\n")
    refused = fresh("decode", checkpoint.with_suffix(".fcb"), "--codec", edited, "-o", "none.safetensors")
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "made by codec 'my_codec' from my_codec.py sha256:" in refused.stderr and "--codec FILE" in refused.stderr
