"""Codecs as torch.export programs: the same bytes, integers and features; what is no chain of networks is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.testing.codecs import SOURCE, make, middle
from fcbench.testing.maps import ONE, TWO, features
from fcbench.transmit import checkpoint, export

SIZE_PX = (100, 140)
"""Its grids are odd."""


def saved(folder: Path, name: str, specs: Any = ONE) -> Path:
    knobs = middle(name)
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, make(name, specs, knobs), OperatingPoint(name, knobs), specs, SOURCE)
    return path


@pytest.mark.parametrize("name", ["factorized", "hyperprior", "gained_hyperprior", "checkerboard"])
def test_programs_give_the_codecs_bytes_integers_and_features(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name)
    export.export(path, SIZE_PX, tmp_path / "out")
    codec: Any = checkpoint.load(path).codec
    said = json.loads((tmp_path / "out" / export.MANIFEST).read_text())
    programs = {Path(n).stem: export.read(tmp_path / "out" / n) for n in said["programs"]}
    other, x = codec.through(programs), features(ONE, (7, 9), seed=5)
    payload = codec.encode(x).payload
    assert other.encode(x).payload == payload
    mine, theirs = (c.decode(payload, x.shapes) for c in (codec, other))
    assert mine.check == theirs.check and torch.equal(mine.features.maps["stage3"], theirs.features.maps["stage3"])


def test_a_codec_of_two_maps_has_programs_of_each(tmp_path: Path) -> None:
    files = export.export(saved(tmp_path, "hyperprior", TWO), SIZE_PX, tmp_path / "out")
    names = {f.stem for f in files}
    assert names == {f"{n}.{i}{k}" for i in (0, 1) for n, k in PROGRAMS} | {"codec"}


PROGRAMS = (("analysis", ""), ("entropy", ".1"), ("synthesis", ""))


def test_tables_are_buffers(tmp_path: Path) -> None:
    path = saved(tmp_path, "hyperprior")
    export.export(path, SIZE_PX, tmp_path / "out")
    state = export.read(tmp_path / "out" / "synthesis.0.pt2").state_dict()
    codec: Any = checkpoint.load(path).codec
    for k in (0, 1):
        assert torch.equal(state[f"tables.{k}.cdf"], codec.map_coders[0].tables(k).cdf)


@pytest.mark.parametrize(("stem", "said"), [("entropy", "code other bytes"), ("synthesis", "decode other values")])
def test_programs_that_code_otherwise_are_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str, said: str
) -> None:
    path, read = saved(tmp_path, "hyperprior"), export.read

    def spoilt(file: Path) -> Any:
        module = read(file)
        if file.stem.startswith(stem):
            with torch.no_grad():
                next(module.parameters()).mul_(1.5)
        return module

    monkeypatch.setattr(export, "read", spoilt)
    with pytest.raises(FcbenchError, match=said):
        export.export(path, SIZE_PX, tmp_path / "out")
    assert not (tmp_path / "out" / export.MANIFEST).exists()


@pytest.mark.parametrize(("name", "said"), [("strata", "not networks and tables alone"), ("uniform", "no networks")])
def test_other_codecs_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(FcbenchError, match=said):
        export.export(saved(tmp_path, name), SIZE_PX, tmp_path / "out")


def test_maps_too_small_for_a_stage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="1x1 leaves a stage empty"):
        export.export(saved(tmp_path, "checkerboard"), (16, 16), tmp_path / "out")
