"""Coding by several processes: the same file, the same features, one line where something goes wrong."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.testing.codecs import make, middle
from fcbench.testing.maps import TWO, features
from fcbench.transmit import checkpoint, senders
from fcbench.transmit.coders import Coders
from fcbench.transmit.senders import Sent

N = 7
SAMPLES = [features(TWO, (5, 7), seed=i) for i in range(N)]


@pytest.fixture(scope="module")
def coders() -> Iterator[Coders]:
    with Coders(2) as two:
        yield two


def saved(name: str, folder: Path) -> Path:
    path = folder / "codec.safetensors"
    codec: Any = make(name, TWO, middle(name))
    checkpoint.save(path, codec, OperatingPoint(name, middle(name)), TWO, checkpoint.Source("none", "0" * 64))
    return path


def write(path: Path, file: Path, *coders: Coders, samples: list[Features] = SAMPLES) -> Sent:
    done = list[int]()
    found = senders.write(path, checkpoint.load(path), iter(samples), N, file, lambda i, n: done.append(i), *coders)
    assert done == list(range(1, N + 1))
    return found


@pytest.mark.parametrize("name", ["uniform", "hyperprior", "strata"])
def test_the_same_bytes_and_features(name: str, coders: Coders, tmp_path: Path) -> None:
    path, one, two = saved(name, tmp_path), tmp_path / "one.fcb", tmp_path / "two.fcb"
    sent = [write(path, one), write(path, two, coders)]
    assert sent[0].sample_bytes == sent[1].sample_bytes and len(sent[0].sample_bytes) == N
    assert sent[0].parts == sent[1].parts and sum(sent[0].parts.values()) == one.stat().st_size
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
    files = [senders.decode(path, one), senders.decode(path, one, coders)]
    for here, there in zip(*files, strict=True):
        assert len(there.decode_ms) == len(here.decode_ms) and min(there.decode_ms) > 0
        assert all(torch.equal(there.maps[k], x) for k, x in here.maps.items())


def test_an_error_of_a_codec_is_its_own(coders: Coders, tmp_path: Path) -> None:
    path = saved("uniform", tmp_path)
    bad = [*SAMPLES[:3], Features({k: x * float("nan") for k, x in SAMPLES[3].maps.items()}), *SAMPLES[4:]]
    errors = []
    for which in ((), (coders,)):
        with pytest.raises(FcbenchError) as caught:
            write(path, tmp_path / "out.fcb", *which, samples=bad)
        errors.append(str(caught.value))
    assert errors[0] == errors[1] and "NaN" in errors[0]
    write(path, tmp_path / "out.fcb", coders)


def test_another_checkpoint_under_the_same_name_is_refused(coders: Coders, tmp_path: Path) -> None:
    path = saved("uniform", tmp_path)
    loaded = checkpoint.load(path)
    saved("hyperprior", tmp_path)
    with pytest.raises(FcbenchError, match="changed while it was in use"):
        senders.write(path, loaded, iter(SAMPLES), N, tmp_path / "out.fcb", lambda i, n: None, coders)


def test_a_process_that_dies_fails_one_point_alone(tmp_path: Path) -> None:
    path, file = saved("uniform", tmp_path), tmp_path / "out.fcb"
    with Coders(2) as two:
        write(path, file, two)
        before = file.read_bytes()
        assert two._pool is not None
        for pid in list(two._pool._processes):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(FcbenchError, match="a process to code samples died"):
            write(path, file, two)
        write(path, file, two)
        assert file.read_bytes() == before
