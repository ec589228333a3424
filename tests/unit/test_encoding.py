"""Encoders in bfloat16: others than those in float32 by name, nearly the same by value."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import torch

from fcbench.cli.suite_options import suite_of
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.encoders.shared.weights import state_sha256
from fcbench.features.encoding import build_encoder
from fcbench.features.extract import describe
from fcbench.features.store import key_of
from fcbench.measure.suite import Suite
from fcbench.testing.encoders import images
from fcbench.testing.fake_data import FakeDataset

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


def test_an_unknown_encoder_stays_unknown() -> None:
    with pytest.raises((FcbenchError, click.ClickException), match="sam3"):
        Suite(encoders=("sam3@bfloat16",)).check()


def test_the_option_names_the_type_of_features() -> None:
    assert Suite().features_dtype == suite_of(None, {"features_dtype": None}).features_dtype == "float32"
    assert suite_of(None, {"features_dtype": "float16"}).features_dtype == "float16"
    with pytest.raises(FcbenchError, match="features_dtype must be 'float32' or 'float16'"):
        Suite(features_dtype="bfloat16")  # type: ignore[arg-type]
