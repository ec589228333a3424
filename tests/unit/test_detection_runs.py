"""Runs with a detection network whose own detections are the truth: what arrives is then all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_sets
import torch
from click.testing import CliRunner, Result
from test_torchvision import state_of
from torchvision import models

from fcbench.analysis import situations
from fcbench.analysis.compare import compare
from fcbench.cli.main import main
from fcbench.core import registry
from fcbench.core.samples import DataOptions
from fcbench.core.tasks import build_tail
from fcbench.encoders.torchvision.tails import NOTHING
from fcbench.features.encoding import build_encoder
from fcbench.results import table

NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"
PX = (64, 96)
N = 4
TINY = f"run --head tail --task detection --encoder torchvision:{NAME}@64 --split-point fpn --dataset coco --batch 2"


def planted(root: Path) -> None:
    """COCO's layout: images of noise in two sizes, annotated with what the network finds in them at `PX`."""
    torch.save(state_of(NAME), root / "w.pth")
    names = [n for n in models.get_model_weights(NAME).DEFAULT.meta["categories"] if n not in NOTHING]
    categories = [{"id": 2 * i + 1, "name": name} for i, name in enumerate(names)]
    (root / "data" / "annotations").mkdir(parents=True)
    encoder = build_encoder(f"torchvision:{NAME}@64", str(root / "w.pth"), torch.device("cpu"))
    tail = build_tail(encoder, "detection", ["fpn1", "fpn2"], PX)
    sizes = [(60, 80), (100, 70)] * (N // 2)
    listed = [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    files = {tag: root / "data" / "annotations" / f"instances_{tag}.json" for tag in ("train2017", "val2017")}
    content: dict[str, list[Any]] = {"images": [*listed], "annotations": [], "categories": [*categories]}
    for k, (tag, file) in enumerate(files.items()):
        for i, size in enumerate(sizes):
            tiny_sets.picture(root / "data" / tag / f"{i}.png", 10 * k + i, size)
        file.write_text(json.dumps(content))
    for k, file in enumerate(files.values()):
        options, rows = DataOptions(root / "data", root / "cache", PX), list[Any]()
        data = registry.get("dataset", "coco").open("test" if k else "train", options)
        for i in range(N):
            maps = encoder(data[i].image[None], ["fpn1", "fpn2"]).maps
            (found,) = tail.predict(maps, [data.targets(i)["detection"]])
            assert len(found.labels) > 0
            for label, (x0, y0, x1, y1) in zip(found.labels.tolist(), found.boxes.tolist()):
                row = {"id": len(rows) + 1, "image_id": i, "category_id": 2 * label + 1, "iscrowd": 0}
                row |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "segmentation": []}
                rows.append(row)
        file.write_text(json.dumps(content | {"annotations": rows}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("detection")
    planted(found)
    return found


def run(root: Path, *options: object) -> Result:
    command = [*TINY.split(), "--weights", root / "w.pth", "--data-root", root / "data", "--image-size", "64x96"]
    command += ["--threads", "1", "--codec-steps", "3", "--cache-dir", root / "cache", *options]
    return CliRunner().invoke(main, [str(a) for a in command])


@pytest.fixture(scope="module")
def rows(root: Path) -> pd.DataFrame:
    codecs = [o for c in ("raw", "uniform", "image:jpeg", "label") for o in ("--codec", c)]
    result = run(root, *codecs, "--out", root / "out")
    assert result.exit_code == 0, result.output
    return table.load(root / "out")


def test_the_network_agrees_with_itself_and_corruption_costs(rows: pd.DataFrame) -> None:
    assert set(rows.status) == {"ok"} and set(rows.metric) >= {"ap", "ap50", "ap_large"}
    ap = rows[rows.metric == "ap"]
    assert ap[ap.kind == "ceiling"].value.item() == pytest.approx(1)
    assert ap[ap.kind == "label"].value.item() == pytest.approx(1)
    assert ap[(ap.codec == "raw") & (ap.params == '{"dtype": "fp32"}')].value.item() == pytest.approx(1)
    assert ap[ap.kind == "floor"].value.item() < 0.3
    coarse = ap[(ap.codec == "uniform") & ap.params.str.contains('"bits": 2')].value
    assert (coarse < 0.7).all() and len(coarse)
    assert (ap.ci_low <= ap.value + 1e-9).all() and (ap[ap.kind == "coded"].ci_low < ap[ap.kind == "coded"].value).any()


def test_rows_name_what_the_network_did_to_the_images(rows: pd.DataFrame) -> None:
    assert set(rows.resizing) == {"stretched; network: shorter side 64, longer at most 128, bilinear"}


def test_codecs_are_set_against_the_best_remote_inference(root: Path, rows: pd.DataFrame) -> None:
    """Its intervals come from the samples that were kept."""
    found, notes = compare(situations.load([root / "out"]), "remote", n_resamples=20)
    of = {c.codec: c for c in found}
    assert not notes and set(of) == {"raw", "uniform", "image:jpeg", "label"}
    assert of["raw"].target == pytest.approx(0.99) and of["image:jpeg"].bd_rate_percent.value == pytest.approx(0)
    assert of["image:jpeg"].bd_rate_percent.low is not None and of["image:jpeg"].rate_at_target.reason


def test_codecs_are_trained_through_the_networks_own_losses(root: Path) -> None:
    options = ("--codec", "hyperprior", "--lambdas", "1", "--objective", "task", "--out", root / "task")
    result = run(root, *options)
    assert result.exit_code == 0, result.output
    found = table.load(root / "task")
    assert set(found[found.codec == "hyperprior"].objective) == {"task"} and set(found.status) == {"ok"}


def test_a_head_to_be_trained_is_refused_before_any_work(root: Path) -> None:
    result = run(root, "--codec", "raw", "--head", "trained", "--out", root / "no")
    assert result.exit_code == 1 and "detection has no trainable head" in result.output
    assert len(result.output.splitlines()) < 6


def test_other_categories_are_refused(root: Path, tmp_path: Path) -> None:
    tiny_sets.coco(tmp_path / "data")
    (tmp_path / "w.pth").write_bytes((root / "w.pth").read_bytes())
    result = run(tmp_path, "--codec", "raw", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "classes, torchvision" in result.output and "states 80" in result.output
    assert len(result.output.splitlines()) < 6
