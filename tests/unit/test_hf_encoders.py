"""``hf:NAME``: vision transformers of the package transformers, against the package's own hidden states."""

from __future__ import annotations

import http.server
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from huggingface_hub import constants

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import GLOBAL, OFFLINE, Encoder
from fcbench.encoders.shared.weights import file_sha256
from fcbench.measure.complexity import macs
from fcbench.testing.encoders import EncoderContract, images

transformers: Any = pytest.importorskip("transformers", reason="needs pip install fcbench[transformers]")
WIDTH: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2)
SMALL = WIDTH | dict(intermediate_size=64)
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]


def clip(**vision: Any) -> Any:
    text = transformers.CLIPTextConfig(**SMALL, vocab_size=50)
    own = transformers.CLIPVisionConfig(**SMALL, image_size=64, patch_size=16)
    return transformers.CLIPConfig(text_config=text.to_dict(), vision_config=own.to_dict() | vision)


CONFIGS: dict[str, tuple[Callable[[], Any], int, int]] = {
    "vit": (lambda: transformers.ViTConfig(**SMALL, image_size=64, patch_size=16), 16, 1),
    "deit": (lambda: transformers.DeiTConfig(**SMALL, image_size=64, patch_size=16), 16, 2),
    "dinov2": (
        lambda: transformers.Dinov2WithRegistersConfig(**WIDTH, image_size=56, patch_size=14, num_register_tokens=4),
        14,
        5,
    ),
    "dinov3": (lambda: transformers.DINOv3ViTConfig(**SMALL, patch_size=16, num_register_tokens=4), 16, 5),
    "clip": (clip, 16, 1),
    "siglip": (lambda: transformers.SiglipVisionConfig(**SMALL, image_size=64, patch_size=16), 16, 0),
}
"""A small configuration, its patch [px], and its number of tokens without a place."""


def build(folder: Path, weights: str | None = "random") -> Any:
    return registry.build_encoder(f"hf:{folder}", weights, torch.device("cpu"))


class OneOfTransformers(EncoderContract):
    """A configuration alone is enough for random weights; the folder may go."""

    config: ClassVar[str]

    @classmethod
    def build(cls, weights: str | None) -> Encoder:
        with tempfile.TemporaryDirectory() as folder:
            CONFIGS[cls.config][0]().save_pretrained(folder)
            found: Encoder = build(Path(folder), weights)
            return found

    def test_it_sends_a_grid_and_tokens_without_a_place(self, encoder: Any) -> None:
        _, patch, n_global = CONFIGS[self.config]
        size = (2 * patch, 3 * patch)
        maps = encoder(images(2, size), list(encoder.specs)).maps
        assert len(maps) == (6 if n_global else 3) and encoder.weights.origin == "random(seed=0)"
        seen: list[torch.Tensor] = []
        layers = [m for m in encoder.module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3][0]
        handles = [layer.register_forward_hook(lambda *a: seen.append(_tensor(a[2]))) for layer in layers]
        x = (images(2, size) / 255 - _rgb([0.485, 0.456, 0.406])) / _rgb([0.229, 0.224, 0.225])
        more = {"interpolate_pos_encoding": True} if self.config in ("vit", "deit", "clip", "siglip") else {}
        with torch.no_grad():
            own = encoder.module(x, output_hidden_states=True, **more).hidden_states
        for handle in handles:
            handle.remove()
        for i in range(3):
            name = f"block{i + 1}"
            parts = [maps[name + GLOBAL].flatten(2)] if n_global else []
            tokens = torch.cat([*parts, maps[name].flatten(2)], 2).transpose(1, 2)
            assert maps[name].shape[2:] == (2, 3) and tokens.shape[1] == n_global + 6
            torch.testing.assert_close(tokens, own[i + 1], rtol=0, atol=1e-5)
            torch.testing.assert_close(own[i + 1], seen[i], rtol=0, atol=0, msg="before the final norm")

    def test_blocks_after_the_split_point_do_not_run(self, encoder: Any) -> None:
        patch, names = CONFIGS[self.config][1], ["block1", "block2", "block3"]
        x, spent = images(2, (2 * patch, 3 * patch)), list[int]()
        whole = encoder(x, list(encoder.specs)).maps
        for name in names:
            spent.append(macs(lambda name=name: encoder(x, [name])))  # type: ignore[misc]
            assert torch.equal(encoder(x, [name]).maps[name], whole[name])
        assert spent == sorted(set(spent))


def _tensor(found: Any) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else found[0]


def _rgb(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1)


for _name in CONFIGS:
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (OneOfTransformers,), {"config": _name})


# ---------------------------------------------------------------------------------------------- weights
def save(model: Any, folder: Path, **processing: Any) -> Any:
    """A published folder: weights, configuration, preprocessing. Returns the model."""
    model.eval().save_pretrained(folder)
    values = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "size": {"height": 64, "width": 64}}
    values |= {"image_mean": CLIP_MEAN, "image_std": [0.25, 0.3, 0.2]} | processing
    (folder / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    return model


def published(kind: str) -> tuple[Any, Any]:
    """A model with other parts around the image part, and the image part."""
    if kind == "clip":
        model = transformers.CLIPModel(clip())
        return model, model.vision_model
    if kind == "vit":  # its file has no pooling layer, and its names begin with "vit."
        model = transformers.ViTForImageClassification(CONFIGS["vit"][0]())
        return model, model.vit
    model = transformers.Dinov2WithRegistersForImageClassification(CONFIGS["dinov2"][0]())
    return model, model.dinov2_with_registers


@pytest.mark.parametrize("kind", ["clip", "vit", "dinov2"])
def test_published_folders_are_read(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, part = published(kind)
    save(model, tmp_path)
    encoder = build(tmp_path, None)
    side = 4 * CONFIGS[kind][1]
    pixels = images(2, (side, side))
    processor = transformers.ViTImageProcessor.from_pretrained(tmp_path, do_resize=False)
    with torch.no_grad():
        own = part(processor(list(pixels), return_tensors="pt")["pixel_values"], output_hidden_states=True)
    found = encoder(pixels, ["block3"]).maps["block3"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, own.hidden_states[3][:, CONFIGS[kind][2] :], rtol=1e-4, atol=1e-4)
    assert encoder.weights.origin == f"file:{tmp_path.name}/model.safetensors"
    again = registry.build_encoder("hf:any/name", str(tmp_path / "model.safetensors"), torch.device("cpu"))
    assert again.weights.sha256 == encoder.weights.sha256 and again.name == "hf:any/name"


def test_the_sha256_is_of_configuration_and_preprocessing_too(tmp_path: Path) -> None:
    model = transformers.ViTModel(CONFIGS["vit"][0]())
    hashes = set()
    for folder, activation, mean in (("a", "gelu", 0.5), ("b", "relu", 0.5), ("c", "gelu", 0.4)):
        save(model, tmp_path / folder, image_mean=[mean] * 3)
        config = json.loads((tmp_path / folder / "config.json").read_text())
        (tmp_path / folder / "config.json").write_text(json.dumps(config | {"hidden_act": activation}))
        hashes.add(build(tmp_path / folder, None).weights.sha256)
    assert len({file_sha256(tmp_path / f / "model.safetensors") for f in "abc"}) == 1 and len(hashes) == 3


@pytest.mark.parametrize(
    ("processing", "expected"),
    [
        ({}, (255 * 0.48145466, 255 * 0.25)),
        ({"rescale_factor": 1 / 127.5}, (127.5 * 0.48145466, 127.5 * 0.25)),
        ({"do_rescale": False}, (0.48145466, 0.25)),
        ({"do_normalize": False}, (0, 255)),
    ],
)
def test_preprocessing_is_the_models_own(
    processing: dict[str, Any], expected: tuple[float, float], tmp_path: Path
) -> None:
    save(transformers.ViTModel(CONFIGS["vit"][0]()), tmp_path, **processing)
    mean, std = (255 * v[0] for v in build(tmp_path, None).normalization)
    assert (mean, std) == pytest.approx(expected)


# ---------------------------------------------------------------------------------------------- refusals
def refused(match: str, make: Callable[[], Any]) -> None:
    with pytest.raises(FcbenchError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: transformers.BertConfig(**SMALL), "'bert' model is no vision model: it takes input_ids"),
        (lambda: transformers.BlipVisionConfig(**SMALL), "no vision model: it takes nothing that AutoModel knows"),
        (lambda: transformers.YolosConfig(**SMALL, image_size=[64, 64]), "hidden states are not the tokens of square"),
        (lambda: transformers.ViTMAEConfig(**SMALL, image_size=64), "hidden states are not the tokens of square"),
        (
            lambda: transformers.SamVisionConfig(**WIDTH, image_size=64, mlp_dim=64),
            "hidden states are not the tokens of square",
        ),
        (lambda: transformers.ResNetConfig(hidden_sizes=[8, 8], depths=[1, 1]), "patch_size is None.*timm:NAME"),
    ],
)
def test_what_sends_no_grid_of_tokens_is_refused(config: Callable[[], Any], reason: str, tmp_path: Path) -> None:
    config().save_pretrained(tmp_path)
    refused(reason, lambda: build(tmp_path))


def test_code_of_others_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    refused("'evil' model, which transformers .* code from the hub is never run", lambda: build(tmp_path))
    CONFIGS["vit"][0]().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"auto_map": auto}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert type(build(tmp_path).module) is transformers.ViTModel and not (tmp_path / "ran").exists()


def test_files_that_are_missing_or_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("config.json cannot be read", lambda: build(tmp_path))
    for typed in ("hf", "hf:no/such/folder"):
        made = partial(registry.build_encoder, typed, None, torch.device("cpu"))
        refused("give a folder here, or OWNER/NAME", made)
    model = save(transformers.ViTModel(CONFIGS["vit"][0]()), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    refused("does not say image_mean and image_std", lambda: build(tmp_path, None))
    (tmp_path / "preprocessor_config.json").unlink()
    refused("preprocessor_config.json cannot be read", lambda: build(tmp_path, None))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    refused("only .safetensors files are read", lambda: build(tmp_path, str(tmp_path / "pytorch_model.bin")))
    (tmp_path / "model.safetensors").unlink()
    refused("holds none of model.safetensors", lambda: build(tmp_path, None))
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(r"pip install fcbench\[transformers\]", lambda: build(tmp_path))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save(transformers.ViTModel(CONFIGS["vit"][0]()), tmp_path)
    transformers.ViTConfig(**SMALL | {"intermediate_size": 48}).save_pretrained(tmp_path)
    refused("does not fit hf:.*of another shape", lambda: build(tmp_path, None))


# --------------------------------------------------------------------------------------------------- hub
class Handler(http.server.SimpleHTTPRequestHandler):
    """A hub whose one repository is a folder; `Handler` is given it as `directory`."""

    served: ClassVar[list[str]] = []

    def send_head(self) -> Any:
        prefix = "/facebook/tiny/resolve/main/"
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
            return None
        path = Path(self.directory) / self.path.removeprefix(prefix)
        if not self.path.startswith(prefix) or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.served.append(f"{self.command} {path.name}")
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{file_sha256(path)}"')
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        return path.open("rb")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a hub's repository, ``facebook/tiny``, and the client of this process pointed at it."""
    (folder := tmp_path / "served").mkdir()
    Handler.served.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


def from_hub(weights: str | None = None) -> Any:
    return registry.build_encoder("hf:facebook/tiny", weights, torch.device("cpu"))


def test_a_named_model_comes_from_the_hub_and_then_from_its_cache(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFLINE, "1")
    refused("would download .*facebook/tiny .model.safetensors", from_hub)
    refused("would download .*config.json.*For random weights, hf:FOLDER", lambda: from_hub("random"))
    assert not Handler.served
    monkeypatch.delenv(OFFLINE)
    save(transformers.CLIPVisionModel(clip().vision_config), hub)
    first = from_hub()
    assert first.weights.origin == "hub:facebook/tiny" and list(first.groups) == ["tokens1", "tokens2", "tokens3"]
    fetched = [line.removeprefix("GET ") for line in Handler.served if line.startswith("GET ")]
    assert sorted(fetched) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    monkeypatch.setenv(OFFLINE, "1")
    assert from_hub().weights == first.weights and build(hub, None).weights.sha256 == first.weights.sha256
    assert from_hub("random").weights.origin == "random(seed=0)"


def test_a_repository_without_safetensors_is_refused(hub: Path) -> None:
    model = save(transformers.ViTModel(CONFIGS["vit"][0]()), hub)
    (hub / "model.safetensors").unlink()
    torch.save(model.state_dict(), hub / "pytorch_model.bin")
    refused("facebook/tiny holds none of model.safetensors", from_hub)
    assert not any("pytorch_model" in line for line in Handler.served)
