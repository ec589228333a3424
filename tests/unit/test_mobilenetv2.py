"""``mobilenetv2:NAME``: what it computes, where its weights come from, how a ``.tflite`` file is read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from file_server import FileServer, serving
from PIL import Image
from safetensors.torch import load_file, save
from torch import nn

from benchmarks import convert_tflite
from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import build_tail
from fcbench.data.shared.voc import CLASSES
from fcbench.encoders import mobilenetv2
from fcbench.encoders.mobilenetv2.tflite import Layer, layers_of, state_of
from fcbench.features.encoding import build_encoder
from fcbench.testing.encoders import images

CPU = torch.device("cpu")
TWINS = Path(__file__).parents[3] / "shared" / "data" / "twins"
CONVERTED = {
    "imagenet": "mobilenetv2_100.imagenet_coral_qat.safetensors",
    "voc_segmentation": "mobilenetv2_100.voc_deeplabv3_qat.safetensors",
    "inat_birds": "mobilenetv2_100.inat_bird_qat.safetensors",
}


# -------------------------------------------------------------------------------------------- network
def weights_of_network(seed: int = 3, **options: Any) -> tuple[nn.Module, bytes]:
    """A whole network of timm, and the file of its weights."""
    torch.manual_seed(seed)
    network = timm.create_model("mobilenetv2_100", **options).eval()
    return network, save(network.state_dict())


@pytest.mark.parametrize("size", [(96, 96), (97, 130)], ids=str)
def test_front_then_tail_is_the_network_as_it_was_trained(size: tuple[int, int]) -> None:
    """TensorFlow's padding and scaling; timm's own padding gives other features."""
    encoder, x = build_encoder("mobilenetv2:imagenet", "random", CPU), images(2, size)
    for padding in ("same", ""):
        network: Any = timm.create_model("mobilenetv2_100", pad_type=padding).eval()
        network.load_state_dict(network.state_dict() | encoder.module.state_dict())
        with torch.no_grad():
            wanted = network.forward_features(x / 127.5 - 1)
            tail: Any = build_tail(encoder, "classification", ["stage2"], size)
            rest = tail.network(encoder(x, ["stage2"]).maps["stage2"])
            found = network.bn2(network.conv_head(encoder(x, ["stage4"]).maps["stage4"]))
        assert rest.shape == (2, 1000)
        assert torch.allclose(found, wanted, atol=1e-4) == (padding == "same")


def test_the_trunk_of_a_segmentation_network_keeps_stride_16() -> None:
    strides = [s.stride_px for s in build_encoder("mobilenetv2:voc_segmentation", "random", CPU).specs.values()]
    assert strides == [4, 8, 16, 16]
    default = {build_encoder(f"mobilenetv2:{n}", "random", CPU).specs["stage3"] for n in mobilenetv2.PUBLISHED}
    assert len(default) == 1, "the default split point is the same map in all"


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3", "stage4"])
def test_deeplab_reads_every_stage(stage: str) -> None:
    encoder, x = build_encoder("mobilenetv2:voc_segmentation", "random", CPU), images(2, (97, 130))
    tail: Any = build_tail(encoder, "segmentation", [stage], (97, 130))
    maps = encoder(x, [stage]).maps
    logits = encoder._whole(x / 127.5 - 1)  # type: ignore[attr-defined]
    whole = nn.functional.interpolate(logits, size=(97, 130), mode="bilinear", align_corners=True)
    torch.testing.assert_close(tail(maps), whole)
    assert tail.label_names == tuple(CLASSES)
    assert not torch.equal(tail(maps), tail({stage: maps[stage].flip(-1)})), "the map decides"
    nll = -tail.log_likelihood(maps, tail.predict(maps, torch.empty(0)))
    assert nll.shape == (2,) and (nll > 0).all()


def test_birds_have_no_tail() -> None:
    with pytest.raises(FcbenchError, match="has no tail"):
        build_tail(build_encoder("mobilenetv2:inat_birds", "random", CPU), "classification", ["stage3"], (96, 96))


# -------------------------------------------------------------------------------------------- weights
@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The published repository, with a file of our own in the place of inat_birds."""
    content = weights_of_network()[1]
    file = dataclasses.replace(
        mobilenetv2.PUBLISHED["inat_birds"], file="net.safetensors", sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(mobilenetv2.PUBLISHED, "inat_birds", file)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    with serving(content, file.file) as found:
        monkeypatch.setattr(mobilenetv2, "URL", found.folder_url)
        yield found


def test_published_weights_are_fetched_once_and_named(server: FileServer) -> None:
    for _ in range(2):
        encoder = build_encoder("mobilenetv2:inat_birds", None, CPU)
        assert encoder.weights.origin == "github:google-coral/test_data@104342d/net.safetensors"
        assert encoder.weights.sha256 == hashlib.sha256(server.sent).hexdigest()
    assert server.n_served == 1
    wanted = weights_of_network()[0].state_dict()
    assert all(torch.equal(t, wanted[n]) for n, t in encoder.module.state_dict().items())


def test_another_file_than_the_published_one_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.sent = weights_of_network(seed=4)[1]
    with pytest.raises(FcbenchError, match="arrived damaged"):
        build_encoder("mobilenetv2:inat_birds", None, CPU)
    path = tmp_path / "hub" / "checkpoints" / "net.safetensors"
    path.write_bytes(server.sent)
    with pytest.raises(FcbenchError, match="is damaged .* was removed"):
        build_encoder("mobilenetv2:inat_birds", None, CPU)
    assert not path.exists()


def test_the_published_address_is_pinned() -> None:
    assert mobilenetv2.URL.startswith("https://raw.githubusercontent.com/google-coral/test_data/104342d")
    assert all(len(p.sha256) == 64 and p.file.endswith(".tflite") for p in mobilenetv2.PUBLISHED.values())


# --------------------------------------------------------------------------------------------- tflite
def quantized(path: Path) -> list[np.ndarray]:
    """Write a file of a convolution 3 to 4 (3x3), a depthwise one (3x3) and a linear layer 4 to 3. Returns the integers
    of weights and biases."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs pip install fcbench[tflite]")
    flatbuffers = pytest.importorskip("flatbuffers")
    generator = np.random.default_rng(0)
    kinds, shapes = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), [(4, 3, 3, 3), (1, 3, 3, 4), (3, 4)]
    n_outputs, code = (4, 4, 3), vars(schema.BuiltinOperator)
    graph, buffers, integers = schema.SubGraphT(), [schema.BufferT()], []
    graph.tensors, graph.operators = [schema.TensorT()], []
    for i, (shape, n) in enumerate(zip(shapes, n_outputs)):
        weight = generator.integers(0, 256, shape).astype(np.uint8)
        bias = generator.integers(-(2**20), 2**20, n).astype(np.int32)
        for values, scale, zero in ((weight, 0.5 + i, 100), (bias, 0.25, 0)):
            tensor, buffer = schema.TensorT(), schema.BufferT()
            tensor.shape, tensor.buffer = list(values.shape), len(buffers)
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            buffers.append(buffer)
            graph.tensors.append(tensor)
            integers.append(values)
        op, at = schema.OperatorT(), len(graph.tensors)
        graph.tensors.append(schema.TensorT())
        op.opcodeIndex, op.inputs, op.outputs = i, [at - 3, at - 2, at - 1], [at]
        graph.operators.append(op)
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, []
    for kind in kinds:
        model.operatorCodes.append(schema.OperatorCodeT())
        model.operatorCodes[-1].builtinCode = code[kind]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return integers


def network(n_classes: int = 2, channels: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, channels, 3),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 3, groups=channels),
        nn.BatchNorm2d(channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, n_classes),
    ).requires_grad_(False)


def test_layers_are_read_in_order_and_in_real_numbers(tmp_path: Path) -> None:
    w1, b1, w2, b2, w3, b3 = quantized(tmp_path / "x.tflite")
    found: list[Layer] = layers_of(tmp_path / "x.tflite")
    weights = [(w1.astype(float) - 100) * 0.5, (w2.astype(float) - 100) * 1.5, (w3.astype(float) - 100) * 2.5]
    orders = [(0, 3, 1, 2), (3, 0, 1, 2), (0, 1)]
    for layer, weight, order, bias in zip(found, weights, orders, (b1, b2, b3)):
        assert np.array_equal(layer.weight.numpy(), weight.transpose(order))
        assert np.array_equal(layer.bias.numpy(), bias * 0.25)
    assert [layer.output for layer in found] == [3, 6, 9]


def test_a_network_with_these_weights_normalizes_nothing(tmp_path: Path) -> None:
    """Each normalization adds the bias; of three outputs the first is left out."""
    quantized(tmp_path / "x.tflite")
    layers, net = layers_of(tmp_path / "x.tflite"), network().eval()
    net.load_state_dict(
        state_of(tmp_path / "x.tflite", net, "net") | {"0.bias": torch.zeros(4), "2.bias": torch.zeros(4)}
    )
    x = torch.rand(1, 3, 8, 8)
    one, two, last = layers
    maps = nn.functional.conv2d(x, one.weight, one.bias)
    maps = nn.functional.conv2d(maps, two.weight, two.bias, groups=4)
    wanted = nn.functional.linear(maps.mean((2, 3)), last.weight, last.bias)[:, 1:]
    torch.testing.assert_close(net(x), wanted)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    quantized(path)
    with pytest.raises(FcbenchError, match=r"does not fit net: 0.weight is \[4, 3, 3, 3\] instead of \[5, 3, 3, 3\]"):
        state_of(path, network(channels=5), "net")
    with pytest.raises(FcbenchError, match="does not fit mobilenetv2:imagenet"):
        build_encoder("mobilenetv2:imagenet", str(path), CPU)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FcbenchError, match="are damaged .*fetch or save the file again"):
        layers_of(path)
    with pytest.raises(FcbenchError, match="nowhere.tflite"):
        layers_of(tmp_path / "nowhere.tflite")


def test_without_the_package_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    with pytest.raises(FcbenchError, match=r"needs ai-edge-litert: pip install fcbench\[tflite\]"):
        layers_of(tmp_path / "x.tflite")


# ------------------------------------------------------------------------------------------ conversion
def converted(*arguments: object) -> Any:
    return CliRunner().invoke(convert_tflite.main, [str(a) for a in arguments])


def test_other_files_are_not_converted(tmp_path: Path) -> None:
    (tmp_path / "other.tflite").write_bytes(b"other")
    result = converted(tmp_path / "other.tflite", "-o", tmp_path / "x.safetensors")
    assert "is none of the published files" in str(result.exception)


@pytest.mark.skipif(not TWINS.is_dir(), reason="needs ../shared/data/twins beside the repository")
@pytest.mark.parametrize("name", ["imagenet", "voc_segmentation", "inat_birds"])
def test_the_real_files_give_the_known_tensors_and_agree_with_the_interpreter(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs pip install fcbench[tflite]")
    y, x = np.mgrid[:240, :320]
    picture = np.stack([x * 0.8, y, 255 * ((x // 40 + y // 40) % 2)], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    source, target = TWINS / mobilenetv2.PUBLISHED[name].file, tmp_path / "x.safetensors"
    result = converted(source, "-o", target, "--images", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"mobilenetv2:{name}" in result.output and "1 images: last map of the trunk" in result.output
    wanted, found = load_file(TWINS / CONVERTED[name]), load_file(target)
    assert wanted.keys() == found.keys() and all(torch.equal(t, found[n]) for n, t in wanted.items())
    agreement = convert_tflite.compare(source, target, [tmp_path / "picture.png"])
    assert agreement.difference < 0.25 and agreement.correlation > 0.97


@pytest.mark.skipif(not TWINS.is_dir(), reason="needs ../shared/data/twins beside the repository")
def test_front_and_tail_segment_as_the_published_network() -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs pip install fcbench[tflite]")
    source = TWINS / mobilenetv2.PUBLISHED["voc_segmentation"].file
    published = interpreter.Interpreter(str(source))
    published.allocate_tensors()
    y, x = np.mgrid[:513, :513]
    picture = np.stack([x * 0.4, y * 0.4, 255 * ((x // 40 + y // 40) % 2)], -1).astype(np.uint8)
    published.set_tensor(published.get_input_details()[0]["index"], picture[None])
    published.invoke()
    wanted = published.get_tensor(published.get_output_details()[0]["index"])[0]
    encoder = build_encoder("mobilenetv2:voc_segmentation", str(source), CPU)
    tail: Any = build_tail(encoder, "segmentation", ["stage3"], (513, 513))
    maps = encoder(torch.from_numpy(picture).permute(2, 0, 1)[None], ["stage3"]).maps
    found = tail.predict(maps, torch.empty(0))[0].numpy()
    assert (found == wanted).mean() > 0.97
