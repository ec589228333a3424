"""Encoders and necks in bfloat16 or compiled: others than the plain ones by name, nearly the same by value."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import torch

from fcbench.cli.suite_options import suite_of
from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.errors import FcbenchError
from fcbench.core.progress import Report
from fcbench.encoders.shared.weights import state_sha256
from fcbench.features import encoding
from fcbench.features.encoding import build_encoder
from fcbench.features.extract import describe
from fcbench.features.source import Source, open_source
from fcbench.features.store import key_of
from fcbench.measure.cross_neck import neck_of_depth
from fcbench.measure.suite import Suite
from fcbench.testing.encoders import images
from fcbench.testing.fake_data import FakeDataset
from fcbench.training.options import Budget
from fcbench.training.readout import Readout, ReadoutRecipe, make_readout
from fcbench.training.records import of as records_of
from fcbench.training.targets import Targets

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["sam2_nano", "timm:vit_tiny_patch16_224", "timm:tf_efficientnet_lite0"])
def test_features_are_nearly_those_of_float32(name: str) -> None:
    plain, reduced = (build_encoder(name + end, "random", CPU) for end in ("", registry.BFLOAT16))
    names = list(plain.specs)
    got, expected = (e(images(2, (64, 64)), names).maps for e in (reduced, plain))
    for k, x in expected.items():
        assert got[k].dtype == torch.float32 and got[k].is_contiguous() and not got[k].is_inference()
        assert 0 < float((got[k] - x).norm() / x.norm()) < 0.03
    assert reduced.name == f"{name}@bfloat16" and reduced.weights == plain.weights
    assert state_sha256(reduced.module) == state_sha256(plain.module)
    assert not any(p.requires_grad for p in reduced.module.parameters())


def test_each_arithmetic_has_features_of_its_own() -> None:
    data = FakeDataset(2)
    keys = {
        key_of(describe(data, build_encoder(name, None, CPU), ["stage3"]))
        for name in ("sam2_nano", "sam2_nano@bfloat16")
    }
    assert len(keys) == 2
    assert type(build_encoder("sam2_nano", None, CPU)) is type(registry.build_encoder("sam2_nano", None, CPU))


def test_the_option_names_the_encoders() -> None:
    default = Suite().encoders
    assert suite_of(None, {"encoder_dtype": None}).encoders == default
    assert suite_of(None, {"encoder_dtype": "float32"}).encoders == default
    reduced = suite_of(None, {"encoder_dtype": "bfloat16"})
    assert reduced.encoders == tuple(f"{e}@bfloat16" for e in default)
    reduced.check()
    mixed = suite_of(None, {"encoders": ("sam2_nano", "hiera_nano@bfloat16"), "encoder_dtype": None})
    mixed.check()
    again = suite_of(None, {"encoders": ("hiera_nano@bfloat16",), "encoder_dtype": "bfloat16"})
    assert again.encoders == ("hiera_nano@bfloat16",)


def test_a_plug_in_file_may_run_in_bfloat16(tmp_path: Path) -> None:
    file = tmp_path / "my_encoder.py"
    file.write_text('from fcbench.encoders.shared.nano import NanoPlugin\nPLUGIN = NanoPlugin("sam2_nano")\n')
    suite = suite_of(None, {"encoders": (str(file),), "encoder_dtype": "bfloat16"})
    suite.check()
    assert suite.encoders == ("my_encoder@bfloat16",)
    assert registry.encoder_family(suite.encoders[0]) == "my_encoder"
    assert build_encoder(suite.encoders[0], None, CPU).name == "sam2_nano@bfloat16"


@pytest.mark.parametrize("end", ["@compiled", "@bfloat16@compiled"])
def test_a_compiled_encoder_is_the_plain_one_by_value(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BACKEND", "eager")  # traced, and then run as it was written
    name = "timm:tf_efficientnet_lite0" + end
    found, plain = (build_encoder(n, "random", CPU) for n in (name, name.removesuffix("@compiled")))
    assert found.name == name
    for n in (2, 1):
        batch = images(n, (64, 64))
        got, expected = (e(batch, ["stage2", "stage4"]).maps for e in (found, plain))
        assert all(torch.equal(got[k], expected[k]) for k in expected) and list(got) == list(expected)
    assert len({key_of(describe(FakeDataset(2), e, ["stage3"])) for e in (found, plain)}) == 2


def test_the_options_name_encoders_and_necks() -> None:
    suite = suite_of(None, {"neck_dtype": "bfloat16", "compiled": True, "encoders": ("sam2_nano",)})
    suite.check()
    assert (suite.encoders, suite.neck) == (("sam2_nano@compiled",), "neck_2L@bfloat16@compiled")
    assert registry.get("neck", suite.neck) is registry.get("neck", "neck_2L")
    assert neck_of_depth("neck_2L@bfloat16", 2) == "neck_4L@bfloat16"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    home = Cache(tmp_path_factory.mktemp("cache")).make()
    data = {split: FakeDataset(12, split=split) for split in ("train", "test")}
    return open_source(data, build_encoder("sam2_nano", "random", CPU), "stage3", home, Report(0))


def readout(source: Source, neck: str, folder: Path, name: str = "depth") -> Readout:
    task = registry.get("task", name).build(source.train.dataset, source.test.dataset)
    recipe = ReadoutRecipe(source, task, neck, Budget(task_steps=40, task_batch=8, width=32), 0)
    found = make_readout(recipe, Targets(source.train.dataset, name), Cache(folder).make(), Report(0), CPU)
    assert isinstance(found, Readout)
    return found


def test_a_neck_in_bfloat16_is_trained_to_nearly_the_same(source: Source, tmp_path: Path) -> None:
    plain, reduced = (readout(source, neck, tmp_path) for neck in ("neck_2L", "neck_2L@bfloat16"))
    assert len(list((tmp_path / "models").glob("task-*.safetensors"))) == 2
    assert {p.dtype for p in reduced.parameters()} == {torch.float32}
    records = [records_of(p) for p in (tmp_path / "models").glob("task-*.safetensors")]
    assert all(r.curve[-1].loss < r.curve[0].loss for r in records)
    assert abs(records[0].curve[-1].loss / records[1].curve[-1].loss - 1) < 0.05
    maps = source.test.features.batch(range(4))
    assert reduced(maps).dtype == torch.float32
    reduced.load_state_dict(plain.state_dict())
    assert 0 < float((reduced(maps) - plain(maps)).norm() / plain(maps).norm()) < 0.03


def test_a_compiled_neck_is_trained_to_the_same(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BACKEND", "eager")
    plain, compiled = (readout(source, neck, tmp_path) for neck in ("neck_2L", "neck_2L@compiled"))
    for name, weight in plain.state_dict().items():
        assert torch.allclose(weight, compiled.state_dict()[name], atol=1e-5)
    assert len(list((tmp_path / "models").glob("task-*.safetensors"))) == 2


def test_an_unknown_encoder_stays_unknown() -> None:
    with pytest.raises((FcbenchError, click.ClickException), match="sam3"):
        Suite(encoders=("sam3@bfloat16",)).check()


def test_the_option_names_the_type_of_features() -> None:
    assert Suite().features_dtype == suite_of(None, {"features_dtype": None}).features_dtype == "float32"
    assert suite_of(None, {"features_dtype": "float16"}).features_dtype == "float16"
    with pytest.raises(FcbenchError, match="features_dtype must be 'float32' or 'float16'"):
        Suite(features_dtype="bfloat16")  # type: ignore[arg-type]
