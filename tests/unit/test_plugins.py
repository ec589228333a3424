"""Plug-ins from outside: found, named, told apart, refused."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from fcbench.cli.main import main
from fcbench.core import libraries, registry
from fcbench.core.codecs import ENDS, Kind, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.core.samples import DatasetMeta
from fcbench.measure.points import Job
from fcbench.measure.rows import _origin
from fcbench.measure.suite import Suite
from fcbench.transmit import checkpoint

ROOT = Path(__file__).parents[2]
CODEC = '"""A codec of mine."""\n\nfrom fcbench.codecs.uniform import PLUGIN\n'
SPECS = (FeatureSpec("stage3", 4, 16),)


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has used no plug-in from outside."""
    monkeypatch.setattr(registry, "_files", {})
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODEC)
    return path


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.2", name: str = "boxed") -> None:
    """A distribution ``toy`` with one codec, as pip leaves it in a folder."""
    (folder / "toy_codecs").mkdir(parents=True)
    (folder / "toy_codecs/__init__.py").write_text('raise RuntimeError("imported")\n')
    (folder / "toy_codecs/boxed.py").write_text(CODEC)
    info = folder / f"toy-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[fcbench.codecs]\n{name} = toy_codecs.boxed:PLUGIN\n")
    monkeypatch.syspath_prepend(str(folder))
    registry._installed.cache_clear()


def mend(folder: Path) -> None:
    (folder / "toy_codecs/__init__.py").write_text("")


def make(name: str, path: Path) -> None:
    """A checkpoint of a codec."""
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    flat = x.transpose(0, 1).flatten(1)
    stats = {"stage3": FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))}
    codec: Any = registry.get("codec", name).build(SPECS, stats, {"bits": 4})
    codec.prepare([x])
    codec.freeze()
    checkpoint.save(path, codec, OperatingPoint(name, {"bits": 4}), SPECS, checkpoint.Source("hiera_nano", "00" * 32))


def fcbench(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


# --------------------------------------------------------------------------------------------------- files
def test_a_file_is_a_plugin_of_its_name(file: Path) -> None:
    assert registry.use("codec", str(file)) == "mine"
    assert "mine" in registry.names("codec") and "mine" not in registry.names("image")
    assert registry.get("codec", "mine").sweep("mse") == registry.get("codec", "uniform").sweep("mse")
    assert registry.summary("codec", "mine") == "A codec of mine."


def test_names_and_variants_of_files(file: Path, tmp_path: Path) -> None:
    assert registry.use("codec", "uniform") == "uniform" and registry.use("encoder", "timm:resnet18") == "timm:resnet18"
    (tmp_path / "eye.py").write_text("from fcbench.encoders.timm import PLUGIN\n")
    assert registry.use("encoder", f"{tmp_path}/eye.py:resnet18") == "eye:resnet18"
    (tmp_path / "still.py").write_text("from fcbench.images.jpeg import PLUGIN\n")
    assert registry.use("codec", f"image:{tmp_path}/still.py") == "image:still"
    assert registry.get("image", "still") is registry.get("image", "jpeg")


def test_a_label_coder_is_a_file_named_after_its_task(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text("from fcbench.labels.classification import PLUGIN\n")
    assert Suite(codecs=(f"label:{tmp_path}/counting.py",)).with_files().codecs == ("label",)
    assert registry.get("label", "counting") is registry.get("label", "classification")


def test_rows_name_the_files_of_heads_and_label_coders(tmp_path: Path) -> None:
    for name, room in (("eye", "taskmodels.nano_depth"), ("counting", "labels.classification")):
        (tmp_path / f"{name}.py").write_text(f"from fcbench.{room} import PLUGIN\n")
    models = {"counting": f"{tmp_path}/eye.py"}
    suite = Suite(codecs=(f"label:{tmp_path}/counting.py",), head="frozen", task_models=models).with_files()
    study: Any = SimpleNamespace(suite=suite, data={"train": SimpleNamespace(meta=DatasetMeta())})
    encoder: Any = SimpleNamespace(name="hiera_nano")
    registry.use("task", str(ROOT / "benchmarks/examples/counting.py"))
    label = Job(Kind.LABEL, OperatingPoint("label"), ("counting",))
    assert set(_origin(study, encoder, label, "counting")) == {"eye.py", "counting.py", "label:counting.py"}
    ceiling = Job(Kind.CEILING, ENDS[Kind.CEILING], ("depth",))
    with pytest.raises(FcbenchError, match="no task model for depth"):
        _origin(study, encoder, ceiling, "depth")


def test_a_suite_uses_its_files(file: Path) -> None:
    suite = Suite(codecs=("uniform", str(file)), params={str(file): ({"bits": 4},)})
    resolved = suite.with_files()
    assert resolved.codecs == ("uniform", "mine") and resolved.params == {"mine": ({"bits": 4},)}
    assert resolved.with_files() == resolved
    resolved.check()


def test_identity_follows_the_content(file: Path) -> None:
    registry.use("codec", str(file))
    first, version = registry.origin("codec", "mine"), registry.code_version("codec", "mine")
    assert list(first) == ["mine.py"] and first["mine.py"].startswith("sha256:")
    assert registry.use("codec", str(file)) == "mine" and registry.origin("codec", "mine") == first
    file.write_text(CODEC + "# edited\n")
    registry.use("codec", str(file))
    assert registry.origin("codec", "mine") != first and registry.code_version("codec", "mine") != version


@pytest.mark.parametrize(
    ("kind", "name", "module"),
    [
        ("codec", "hevc_klt", "codecs.shared.mosaic"),
        ("codec", "hyperprior", "codecs.shared.transforms"),
        ("codec", "strata", "codecs.strata.spectrum"),
        ("neck", "neck_2L", "necks.shared.transformer"),
        ("task", "depth", "tasks.shared.dense"),
    ],
)
def test_identity_follows_the_modules_that_plugins_share(
    kind: str, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trained before one of them changed is not used."""
    before, other, hashed = registry.code_version(kind, name), registry.code_version("codec", "pq"), libraries._hash
    monkeypatch.setattr(libraries, "_hash", lambda m: "new" if m == f"fcbench.{module}" else hashed(m))
    monkeypatch.setattr(libraries, "code_in", libraries.code_in.__wrapped__)
    assert registry.code_version(kind, name) != before and registry.code_version("codec", "pq") == other


def test_what_a_file_makes_can_be_pickled(tmp_path: Path) -> None:
    path = tmp_path / "made.py"
    imports = "from dataclasses import dataclass\nfrom fcbench.core.codecs import LabelPlugin\n"
    path.write_text(f"{imports}@dataclass\nclass Made(LabelPlugin):\n    n: int = 3\nPLUGIN = Made()\n")
    registry.use("label", str(path))
    assert pickle.loads(pickle.dumps(registry.get("label", "made"))).n == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "sets no PLUGIN"),
        ("PLUGIN = 3\n", "not a CodecPlugin: it lacks bases, build, continued, sweep"),
        ("x = 1\n\nimport no_such_module\n", "No module named 'no_such_module' \\(line 3\\)"),
        ("x = (\n", "SyntaxError"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(FcbenchError, match=message) as caught:
        registry.use("codec", str(path))
    assert "bad.py" in str(caught.value) and "\n" not in str(caught.value)
    assert "bad" not in registry.names("codec")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FcbenchError, match="cannot read the plug-in file .*none.py: No such file"):
        registry.use("codec", "./none.py")


def test_a_file_of_a_taken_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uniform.py"
    path.write_text(CODEC)
    with pytest.raises(FcbenchError, match="'uniform' is ambiguous: .* built into fcbench and in .*uniform.py"):
        registry.use("codec", str(path))
    assert registry.origin("codec", "uniform") == {}


# ----------------------------------------------------------------------------------------------- installed
def test_an_installed_plugin_is_listed_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    assert "boxed" in registry.names("codec")
    assert registry.origin("codec", "boxed") == {"toy": "1.2"}
    shown = fcbench("list", "codecs")
    assert shown.exit_code == 0 and "A codec of mine. [toy 1.2]" in shown.stdout
    with pytest.raises(FcbenchError, match="codec 'boxed' of toy 1.2 cannot be imported: RuntimeError: imported"):
        registry.get("codec", "boxed")
    mend(tmp_path)
    assert registry.get("codec", "boxed").sweep("mse")
    assert len(registry.code_version("codec", "boxed")) == 16


def test_an_installed_plugin_of_a_taken_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, name="uniform")
    with pytest.raises(FcbenchError, match="'uniform' is ambiguous: .* built into fcbench and in toy 1.2"):
        registry.get("codec", "uniform")
    assert registry.get("codec", "raw") is not None


# --------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_knows_the_file_of_its_codec(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    registry.use("codec", str(file))
    make("mine", path)
    assert checkpoint.load(path).point.codec == "mine"
    monkeypatch.setattr(registry, "_files", {})  # as in a new process
    assert checkpoint.load(path).point.codec == "mine"
    monkeypatch.setattr(registry, "_files", {})
    moved = tmp_path / "elsewhere" / "mine.py"
    moved.parent.mkdir()
    file.rename(moved)
    with pytest.raises(FcbenchError, match="from mine.py sha256:[0-9a-f]{16}, but here is none: give --codec FILE"):
        checkpoint.load(path)
    assert fcbench("inspect", path, "--codec", moved).exit_code == 0
    moved.write_text(CODEC + "# edited\n")
    refused = fcbench("inspect", path, "--codec", moved)
    assert refused.exit_code == 1 and "here is mine.py sha256:" in refused.output
    assert "expected a file" in fcbench("inspect", path, "--codec", "uniform").output


def test_a_checkpoint_knows_the_version_of_its_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, site = tmp_path / "c.safetensors", tmp_path / "site"
    install(site, monkeypatch)
    mend(site)
    make("boxed", path)
    assert checkpoint.load(path).point.codec == "boxed"
    info = next(site.glob("*.dist-info"))
    (info / "METADATA").write_text((info / "METADATA").read_text().replace("1.2", "1.3"))
    info.rename(site / "toy-1.3.dist-info")
    registry._installed.cache_clear()
    with pytest.raises(FcbenchError, match="from toy 1.2, but here is toy 1.3: pip install toy==1.2"):
        checkpoint.load(path)


def test_built_in_checkpoints_say_nothing_of_origin(tmp_path: Path) -> None:
    make("uniform", tmp_path / "c.safetensors")
    assert b"origin" not in (tmp_path / "c.safetensors").read_bytes()
