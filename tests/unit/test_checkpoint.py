"""Codec checkpoints: what is forged or damaged is one line, whatever it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors

from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.testing.codecs import SOURCE, make, middle
from fcbench.testing.maps import ONE, TWO
from fcbench.transmit import checkpoint

KEY = "fcbench_codec"


def saved(name: str = "uniform") -> bytes:
    return checkpoint.as_bytes(make(name, TWO, middle(name)), OperatingPoint(name, middle(name)), TWO, SOURCE)


@pytest.fixture(scope="module")
def good() -> bytes:
    return saved()


def outer(data: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON header of a safetensors file, and the tensors after it."""
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def joined(header: Any, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def forged(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A checkpoint with changed metadata under a digest that fits."""
    header, tensors = outer(data)
    meta = json.loads(header["__metadata__"][KEY])
    change(meta)
    if "digest" in meta:
        rest = {k: v for k, v in meta.items() if k != "digest"}
        meta["digest"] = checkpoint._digest(rest, safetensors.load(data))
    header["__metadata__"][KEY] = json.dumps(meta, sort_keys=True)
    return joined(header, tensors)


def places(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all fields of JSON, those of objects and lists too."""
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [p for key, value in items for p in ((*path, key), *places(value, (*path, key)))]


def put(found: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        found = found[key]
    found[path[-1]] = value


TEXT = st.text(max_size=8) | st.sampled_from(
    ["BNC", "raw", "pq", "hyperprior", "shared", "\ud800", "\x1b[31m", "\x1e", "\0", "a" * 300]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**70, 10**30])
JSON: Any = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def loads_or_refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        checkpoint.load(path)
    except FcbenchError as error:
        assert len(str(error).splitlines()) == 1 and str(path) in str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_any_field_loads_or_is_one_line(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    meta = json.loads(outer(good)[0]["__metadata__"][KEY])
    place = data.draw(st.sampled_from([*places(meta), ("origin",), ("file",), ("origin", "x.py")]), "place")
    value = data.draw(JSON, "value")

    def change(meta: dict[str, Any]) -> None:
        if place[0] == "origin":
            meta["origin"] = {}
        put(meta, place, value)

    loads_or_refuses(tmp_path / "c.safetensors", forged(good, change))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_the_outer_header_loads_or_is_one_line(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    header, tensors = outer(good)
    put(header, data.draw(st.sampled_from(places(header)), "place"), data.draw(JSON, "value"))
    loads_or_refuses(tmp_path / "c.safetensors", joined(header, tensors))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("params",), 5, "'params' must be dict, got 5"),
        (("params",), None, "'params' must be dict, got None"),
        (("params", "bits"), None, "parameter 'bits' must be a finite number or text, got None"),
        (("params", "bits"), 99, "parameter bits must be a number from 2 to 8, got 99"),
        (("specs",), [], "'specs' must be of one map or more"),
        (("specs", 0, "channels"), -1, "a map cannot have -1 channels"),
        (("specs", 0, "channels"), 0, "a map cannot have 0 channels"),
        (("specs", 0, "channels"), 10**9, "has 1000000000 channels, its statistics are of 6"),
        (("specs", 0, "channels"), True, "'channels' must be int, got True"),
        (("specs", 0, "layout"), "HWC", "layout 'HWC'"),
        (("specs", 1, "name"), "layer.2", "of different names"),
        (("source", "encoder"), 7, "'encoder' must be str, got 7"),
        (("source",), None, "'source' must be dict, got None"),
        (("codec",), ["uniform"], "'codec' must be str"),
        (("codec",), "raw", "codec 'raw' has the parameters dtype; got bits"),
        (("file",), 5, "'file' must be str, got 5"),
        (("origin",), {"x.py": 3}, "'x.py' must be str, got 3"),
        (("version",), 99, "has version 99"),
    ],
)
def test_a_forged_header_is_refused_by_name(
    good: bytes, tmp_path: Path, place: tuple[Any, ...], value: Any, words: str
) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(forged(good, lambda meta: put(meta, place, value)))
    with pytest.raises(FcbenchError) as caught:
        checkpoint.load(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_a_file_of_any_size_or_none_is_no_checkpoint(good: bytes, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(checkpoint.MAX_BYTES + 1)  # takes no room
    os.mkfifo(tmp_path / "pipe")  # reading it would block
    for name in ("large", "pipe", "."):
        with pytest.raises(FcbenchError, match="not a file, or larger"):
            checkpoint.load(tmp_path / name)


def test_a_file_beside_a_checkpoint_is_not_run(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = b"open('run', 'w')"
    Path("mine.py").write_bytes(code)
    origin = {"mine.py": f"sha256:{hashlib.sha256(code).hexdigest()}"}
    path = tmp_path / "c.safetensors"
    path.write_bytes(forged(good, lambda meta: meta.update(codec="mine", origin=origin, file="mine.py")))
    with pytest.raises(FcbenchError, match="give --codec FILE"):
        checkpoint.load(path)
    assert not Path("run").exists()


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    codec = make("hyperprior", ONE, middle("hyperprior"))
    state = {k: v.clone() for k, v in codec.state_dict().items()}
    dropped = [n for n in state if "h_a" in n][:4]
    for name in dropped:
        del state[name]
    state["surprise"] = torch.zeros(1)
    state["stats.0.std"] = torch.ones(3, 1, 1)

    class Forged(torch.nn.Module):
        def state_dict(self, *args: Any, **named: Any) -> Any:
            return state

    path = tmp_path / "c.safetensors"
    checkpoint.save(path, Forged(), OperatingPoint("hyperprior", middle("hyperprior")), ONE, SOURCE)
    with pytest.raises(FcbenchError) as caught:
        checkpoint.load(path)
    line = str(caught.value)
    assert f"{path} does not fit hyperprior(lmbda=2): {len(dropped)} missing: {min(dropped)}" in line
    assert "1 unexpected: surprise" in line and "stats.0.std (3, 1, 1) instead of (12, 1, 1)" in line
    assert "load" not in line and "Error(s)" not in line
