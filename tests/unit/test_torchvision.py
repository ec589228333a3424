"""torchvision's networks, cut: front and rest are the network that torchvision itself builds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_server import FileServer, serving
from pycocotools import mask as rle
from torch import Tensor, nn
from torchvision import models

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.core.samples import Objects
from fcbench.core.tasks import TailedEncoder, build_tail
from fcbench.encoders.shared.weights import published_file, state_sha256
from fcbench.encoders.torchvision import create, names
from fcbench.encoders.torchvision.weights import COUNTER, NO_EPSILON
from fcbench.features.encoding import build_encoder
from fcbench.features.statistics import statistics
from fcbench.tasks.shared import coco_ap

CPU = torch.device("cpu")
PX = (64, 96)
FAST = (
    "fasterrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssdlite320_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
EVERY = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in names()]


def image() -> Tensor:
    return torch.randint(0, 256, (1, 3, *PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def state_of(name: str) -> dict[str, Tensor]:
    """Random weights that say something: scores beyond the thresholds."""
    torch.manual_seed(3)
    state = create(name).state_dict()
    for key, value in state.items():
        if key.endswith("cls_score.weight"):
            value *= 40
        elif "cls_logits" in key and key.endswith("bias") and not name.startswith("ssd"):
            value.zero_()
        elif "mobilenet" in name and value.ndim == 4:  # as torchvision draws them, nothing arrives at the end
            nn.init.kaiming_normal_(value)
    return {k: v for k, v in state.items() if not (name in NO_EPSILON and k.endswith(COUNTER))}


def typed(name: str) -> str:
    """The name with a small side, where the network resizes."""
    return name if name.startswith(("ssd", "fcn", "deeplab", "lraspp")) else f"{name}@64"


def official(name: str, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network as torchvision builds it with its published weights, which are these."""
    enum = models.get_model_weights(name)
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: state)
    whole: Any = models.get_model(name, weights=enum.DEFAULT).eval()
    if typed(name) != name:
        whole.transform.max_size = round(whole.transform.max_size * 64 / whole.transform.min_size[-1])
        whole.transform.min_size = (64,)
    assert isinstance(whole, nn.Module)
    return few(whole)


def few(whole: Any) -> Any:
    """A network that reports a few detections: what it says of each takes longest."""
    if hasattr(whole, "roi_heads"):
        whole.roi_heads.detections_per_img = 4
    return whole


def lossless(encoder: TailedEncoder, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """The maps of one sample, coded and decoded."""
    specs = [encoder.specs[name] for name in maps]
    stats = statistics(maps.items())
    raw, one = registry.get("codec", "raw").build(specs, stats, {"dtype": "fp32"}), Features(maps)
    return raw.decode(raw.encode(one).payload, one.shapes).features.maps


def build(name: str, state: dict[str, Tensor], folder: Path) -> TailedEncoder:
    torch.save(state, folder / "w.pth")
    encoder = build_encoder(f"torchvision:{typed(name)}", str(folder / "w.pth"), CPU)
    assert isinstance(encoder, TailedEncoder)
    return encoder


def said(whole: Any, x: Tensor) -> dict[str, Tensor]:
    """What a whole network says of an image."""
    if not hasattr(whole, "transform"):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return {"out": whole((x / 255 - mean) / std)["out"]}
    found: dict[str, Tensor] = whole(list(x / 255))[0]
    return found


def of_tail(tail: Any, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a tail says of one sample."""
    if not hasattr(tail, "task"):
        return {"out": tail(maps)}
    found: dict[str, Tensor] = tail(maps, [PX])[0]
    return found


def require_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for key in found:
        scale = max(1.0, float(wanted[key].abs().max())) if wanted[key].numel() else 1.0
        torch.testing.assert_close(found[key], wanted[key], rtol=0, atol=1e-5 * scale)


@torch.no_grad()
@pytest.mark.parametrize("name", EVERY)
def test_front_then_tail_is_the_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(name)
    encoder, whole = build(name, state, tmp_path), official(name, state, monkeypatch)
    wanted = said(whole, image())
    assert len(next(iter(wanted.values()))) > 0, "it says something"
    assert all(len(points) >= 2 for points in encoder.tails.values())
    for task, points in encoder.tails.items():
        for point in points:
            members = encoder.groups.get(point, (point,))
            tail, maps = build_tail(encoder, task, members, PX), encoder(image(), members).maps
            few(getattr(tail, "network"))
            require_close(of_tail(tail, maps), wanted)
            arrived = lossless(encoder, maps)
            assert all(torch.equal(arrived[m], maps[m]) for m in members)
            require_close(of_tail(tail, arrived), wanted)
            noise = of_tail(tail, {k: m + m.std() * torch.randn_like(m) for k, m in maps.items()})
            key = "out" if "out" in wanted else "boxes"
            changed = noise[key].shape != wanted[key].shape or float((noise[key] - wanted[key]).abs().max()) > 1e-3
            assert changed, "what arrives decides"


# --------------------------------------------------------------------------------------------- weights
SMALL = "ssdlite320_mobilenet_v3_large"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    torch.save(state_of(SMALL), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    with serving(content, f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth") as found:
        yield found


def fetch(url: str) -> Path:
    return published_file("torchvision:net", url, re.findall(r"-(\w{8})\.", url)[0])


def refused(url: str, words: str) -> None:
    with pytest.raises(FcbenchError, match=words) as caught:
        fetch(url)
    assert "\n" not in str(caught.value)


def test_published_weights_are_fetched_once_and_named(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.get_model_weights(SMALL).DEFAULT.value, "url", server.url)
    for _ in range(2):
        encoder = build_encoder(f"torchvision:{SMALL}", None, CPU)
        assert encoder.weights.origin == f"torchvision:{server.name}"
        assert encoder.weights.sha256.startswith(server.name[4:12])
    assert server.n_served == 1


def test_damaged_weights_are_refused_and_fetched_again(server: FileServer) -> None:
    whole, server.sent = server.sent, server.sent[:-1] + b"?"
    refused(server.url, "arrived damaged .*run the command again")
    server.sent = whole
    path = fetch(server.url)
    path.write_bytes(whole[:100])
    refused(server.url, "is damaged .*promised is .* and was removed")
    assert fetch(server.url).read_bytes() == whole


def test_weights_that_are_not_there(server: FileServer) -> None:
    refused(server.url.replace("net-", "other-"), "answers 404 .*--weights FILE")
    server.shutdown()
    server.server_close()
    refused(server.url, "torchvision:net: its weights are not on this machine .*would download http://127")


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("", "needs a network"),
        ("fasterrcnn_resnet50", "Did you mean 'fasterrcnn_resnet50_fpn"),
        ("ssd300_vgg16", "unknown torchvision network"),
        ("fcn_resnet50@64", "has no shorter side"),
        ("fcos_resnet50_fpn@8", "is '8': at least 64"),
        ("fcos_resnet50_fpn@x", "is 'x': at least 64"),
    ],
)
def test_other_names_are_refused(variant: str, words: str) -> None:
    with pytest.raises(FcbenchError, match=words) as caught:
        build_encoder(f"torchvision:{variant}", "random", CPU)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(state_of("lraspp_mobilenet_v3_large"), tmp_path / "w.pth")
    with pytest.raises(FcbenchError, match="does not fit torchvision:ssd.* missing.* unexpected") as caught:
        build_encoder(f"torchvision:{SMALL}", str(tmp_path / "w.pth"), CPU)
    assert "\n" not in str(caught.value)
    torch.save(state_of(SMALL) | {"head.classification_head.module_list.0.1.bias": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(FcbenchError, match="size mismatch"):
        build_encoder(f"torchvision:{SMALL}", str(tmp_path / "w.pth"), CPU)


def test_a_point_without_tail_is_refused_with_those_that_have_one() -> None:
    encoder = build_encoder("torchvision:fasterrcnn_mobilenet_v3_large_fpn@64", "random", CPU)
    for points in (["fpn1"], ["c4", "c5"]):
        with pytest.raises(FcbenchError, match="--split-point must be one of c2, c3, c4, c5, fpn"):
            build_tail(encoder, "detection", points, PX)


# ---------------------------------------------------------------------------------------------- losses
def objects(task: str) -> Objects:
    """Two objects and a crowd."""
    masks = [rle.encode(np.asfortranarray(np.pad(np.ones((20, 20), np.uint8), ((10, 34), (10, 66))))) for _ in range(3)]
    keypoints = np.dstack([np.full((3, 17, 2), 20.0), np.full((3, 17, 1), 2.0)]) if "keypoint" in task else None
    boxes = np.array([[10.0, 10, 20, 20], [40, 5, 30, 40], [0, 0, 96, 64]])
    labels = np.zeros(3, np.int64)
    return Objects(PX, labels, boxes, boxes[:, 2] * boxes[:, 3], np.array([False, False, True]), masks, keypoints)


SLOW_TO_LEARN = ("retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn", "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")


@pytest.mark.parametrize(
    "name", [FAST[0], SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TO_LEARN)]
)
def test_losses_reach_the_maps_and_leave_the_network_alone(name: str, tmp_path: Path) -> None:
    encoder = build(name, state_of(name), tmp_path)
    for task, points in encoder.tails.items():
        members = encoder.groups.get(points[0], (points[0],))
        tail: Any = build_tail(encoder, task, members, PX)
        few(tail.network)
        before = state_sha256(tail)
        maps = {k: m.clone().requires_grad_() for k, m in encoder(image(), members).maps.items()}
        torch.manual_seed(0)  # proposals are drawn
        losses = [tail.loss(maps, [objects(task)]), tail.imitation_loss(maps, encoder(image(), members).maps)]
        for loss in losses:
            assert loss.shape == () and torch.isfinite(loss) and loss > 0
        sum(losses).backward()
        assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in maps.values())
        assert not tail.network.training
        assert state_sha256(tail) == before


@torch.no_grad()
@pytest.mark.parametrize("name", ["keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "fcos_resnet50_fpn"])
def test_an_image_without_detections_and_one_of_a_pixel_have_defined_values(name: str) -> None:
    encoder = build_encoder(f"torchvision:{name}@64", "random", CPU)
    assert isinstance(encoder, TailedEncoder)
    task, points = [*encoder.tails][-1], encoder.groups["fpn"]
    tail: Any = build_tail(encoder, task, points, (1, 1))
    getattr(tail.network, "roi_heads", tail.network).score_thresh = 2.0
    maps = encoder(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), points).maps
    (found,) = tail.predict(maps, [objects(task)])
    assert found.boxes.shape == (0, 4) and found.labels.size == found.scores.size == len(found.regions) == 0
    kind: Any = {"keypoint_detection": "keypoints", "instance_segmentation": "segm"}.get(task, "bbox")
    stats = coco_ap.image_statistics(kind, objects(task), found, 80)
    values = coco_ap.metric_values(stats[None], np.ones((1, 1)), kind)
    assert values["ap"] == 0 and stats[:-1200].sum() > 0
