"""Tails: front and rest of a network are the network, and what the codec does to the features decides."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import tiny_sets
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from fcbench.cli.main import main
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.core.tasks import TailedEncoder, build_tail, require_labels
from fcbench.features.encoding import build_encoder
from fcbench.results import table
from fcbench.testing.codecs import make

CPU = torch.device("cpu")
NETWORKS = ("test_resnet", "test_efficientnet", "test_convnext", "tf_efficientnet_lite0")
VITS = ("test_vit", "test_vit3", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_336")
"""With one class token; attention pooling; published; two tokens without a place; rotary positions."""
PX = (96, 64)


def published(name: str, folder: Path) -> tuple[nn.Module, TailedEncoder]:
    """A whole network of timm, and the encoder of its weights' file."""
    torch.manual_seed(3)
    how: dict[str, Any] = {"dynamic_img_size": True} if name in VITS else {}
    whole = timm.create_model(name, **how).eval()
    for layer in whole.modules():  # some start so small that nothing decides
        if name in VITS and isinstance(layer, nn.Linear) and layer.out_features == whole.num_classes:
            nn.init.normal_(layer.weight, std=0.1)
    save_file(whole.state_dict(), folder / "w.safetensors")
    encoder = build_encoder(f"timm:{name}", str(folder / "w.safetensors"), CPU)
    assert isinstance(encoder, TailedEncoder)
    return whole, encoder


def images(seed: int = 1, px: tuple[int, int] = PX) -> Tensor:
    return torch.randint(0, 256, (2, 3, *px), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalized(whole: nn.Module, x: Tensor) -> Tensor:
    config = resolve_model_data_config(whole)
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (x / 255 - mean) / std


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS + VITS)
def test_front_then_tail_is_the_network(name: str, tmp_path: Path) -> None:
    whole, encoder = published(name, tmp_path)
    px = (84, 56) if "patch14" in name else PX
    x = images(px=px)
    wanted = whole(normalized(whole, x))
    assert len(encoder.tails["classification"]) >= 4
    for group in encoder.tails["classification"]:
        points = encoder.groups.get(group, (group,))
        tail = build_tail(encoder, "classification", points, px)
        found = encoder(x, points)
        got = tail(found.maps)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))
        one = Features({point: m[:1] for point, m in found.maps.items()})
        raw = make("raw", tuple(encoder.specs[point] for point in points), {"dtype": "fp32"})
        arrived = raw.decode(raw.encode(one).payload, one.shapes).features.maps
        assert torch.equal(tail(arrived), tail(one.maps)), "after a lossless codec"
        noise = {point: m + m.std() * torch.randn_like(m) for point, m in found.maps.items()}
        assert float((tail(noise) - got).abs().max()) > 1e-3, "what arrives decides"


def test_a_tail_keeps_nothing_of_a_batch(tmp_path: Path) -> None:
    """It could not be copied with a gradient's graph."""
    _, encoder = published("test_vit", tmp_path)
    points = encoder.groups["tokens1"]
    tail = build_tail(encoder, "classification", points, PX)
    maps = {name: m.clone().requires_grad_() for name, m in encoder(images(), points).maps.items()}
    tail.loss(maps, torch.tensor([0, 1])).backward()
    assert all(m.grad is not None and m.grad.any() for m in maps.values())
    copy.deepcopy(tail)


@pytest.mark.parametrize(
    ("name", "task", "points", "words"),
    [
        ("timm:test_vit", "classification", ["block2"], "--split-point must be one of tokens1, tokens2"),
        ("timm:test_resnet", "depth", ["stage2"], "no tail for depth: it has one for classification"),
        ("timm:test_resnet", "classification", ["stage1", "stage2"], "--split-point must be one of stage1, stage2"),
        ("sam2_nano", "classification", ["stage3"], "sam2_nano has no tail at any split point"),
    ],
)
def test_no_tail_is_one_line_that_names_those_there_are(name: str, task: str, points: list[str], words: str) -> None:
    with pytest.raises(FcbenchError, match=words) as caught:
        build_tail(build_encoder(name, "random", CPU), task, points, PX)
    assert "\n" not in str(caught.value)


def test_an_encoder_in_bfloat16_has_the_tails_of_the_plain_one() -> None:
    plain, reduced = (build_encoder("timm:test_resnet" + end, "random", CPU) for end in ("", "@bfloat16"))
    maps = plain(images(), ["stage2"]).maps
    one, other = (build_tail(e, "classification", ["stage2"], PX)(maps) for e in (plain, reduced))
    assert torch.equal(one, other)
    with pytest.raises(FcbenchError, match="sam2_nano@bfloat16 has no tail at any split point"):
        build_tail(build_encoder("sam2_nano@bfloat16", "random", CPU), "classification", ["stage3"], PX)


def test_a_network_without_classes_says_so() -> None:
    encoder = build_encoder("timm:vit_small_patch14_reg4_dinov2", "random", CPU)
    points = encoder.groups["tokens12"]
    maps = encoder(images(px=(28, 42)), points).maps
    assert [tuple(m.shape) for m in maps.values()] == [(2, 384, 2, 3), (2, 384, 1, 5)], "a class token, four registers"
    with pytest.raises(FcbenchError, match="states 0 classes"):
        build_tail(encoder, "classification", points, (28, 42))


def test_labels_are_compared_and_never_guessed() -> None:
    require_labels("net", ("a", "b"), "data", ("a", "b"))
    for given, words in ((("a",), "has 1 classes, net states 2"), (("a", "c"), "class 1 of data set 'data' is 'c'")):
        with pytest.raises(FcbenchError, match=words):
            require_labels("net", ("a", "b"), "data", given)


# ------------------------------------------------------------------------------------------------ runs
TINY = "run --head tail --task classification --weights random --codec-steps 4 --batch 2 --encoder"


def run(root: Path, *options: object, dataset: str = "imagenet1k", network: str = "test_resnet") -> Result:
    command = [*TINY.split(), f"timm:{network}", "--dataset", dataset, "--data-root", root / "data"]
    command += ["--image-size", "64", "--split-point", "stage2", "--threads", "1", "--cache-dir", root / "cache"]
    command += options
    return CliRunner().invoke(main, [str(a) for a in command])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tails")
    tiny_sets.imagenet1k(found / "data", 6)
    return found


@pytest.fixture(scope="module")
def rows(root: Path) -> pd.DataFrame:
    codecs = [o for c in ("raw", "hyperprior", "image:jpeg", "label") for o in ("--codec", c)]
    result = run(root, *codecs, "--lambdas", "1", "--out", root / "out")
    assert result.exit_code == 0, result.output
    return table.load(root / "out")


def test_a_run_trains_no_readout(rows: pd.DataFrame) -> None:
    assert set(rows.status) == {"ok"} and set(rows["head"]) == {"tail"} and set(rows.neck) == {""}
    assert (rows.encoder_ms > 0).all() and (rows.head_ms > 0).all() and rows.neck_ms.isna().all()
    assert rows.task_steps.isna().all() and set(rows.task_stop) == {""}
    assert set(rows.kind) == {"ceiling", "floor", "coded", "remote", "label"}
    assert rows[rows.codec == "hyperprior"].codec_steps.eq(4).all()
    assert set(rows.resizing) == {"central 0.875, bicubic"}


def test_a_lossless_codec_reads_as_the_ceiling(rows: pd.DataFrame) -> None:
    rows = rows[(rows.codec != "raw") | (rows.params == '{"dtype": "fp32"}')]
    values = {k: rows[rows.codec == k].set_index("metric").value for k in ("raw", "uncoded", "hyperprior")}
    pd.testing.assert_series_equal(values["raw"], values["uncoded"], rtol=1e-6)
    assert values["hyperprior"]["nll"] != values["uncoded"]["nll"]


def test_codecs_can_be_trained_through_the_tail(root: Path) -> None:
    options = ("--codec", "hyperprior", "--objective", "task", "--lambdas", "1", "--out", root / "task")
    result = run(root, *options)
    assert result.exit_code == 0, result.output
    found = table.load(root / "task")
    assert set(found[found.codec == "hyperprior"].objective) == {"task"}


def test_tokens_of_a_vit_are_coded_and_read(root: Path) -> None:
    """The class token crosses the codec beside the map: without loss it reads as the ceiling."""
    options = ("--split-point", "tokens3", "--codec", "raw", "--codec", "uniform", "--out", root / "vit")
    result = run(root, *options, network="test_vit")
    assert result.exit_code == 0, result.output
    found = table.load(root / "vit")
    assert set(found.status) == {"ok"} and set(found.split) == {"tokens3"}
    assert set(found.n_points / found.n_samples) == {64 * (4 * 4 + 1)}
    nll = found[found.metric == "nll"].set_index(["codec", "params"]).value
    assert nll["raw", '{"dtype": "fp32"}'] == pytest.approx(nll["uncoded", "{}"], rel=1e-6)
    assert nll["uniform", '{"bits": 2}'] != nll["uncoded", "{}"]


def test_other_labels_are_refused_before_any_work(root: Path, tmp_path: Path) -> None:
    tiny_sets.imagenet(tmp_path / "data")
    result = run(tmp_path, "--codec", "raw", "--out", tmp_path / "out", dataset="imagenet")
    assert result.exit_code == 1 and "3 classes" in result.output and "states 1000" in result.output
    assert len(result.output.splitlines()) < 6


# ------------------------------------------------------------------------------------ codecs' own images
@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without any label."""
    found = tmp_path_factory.mktemp("unlabelled")
    for i in range(6):
        tiny_sets.picture(found / "train" / "images" / f"{i}.png", i, (64, 64))
        tiny_sets.picture(found / "test" / "images" / f"{i}.png", 50 + i, (64, 64))
    return found


def test_codec_data_can_be_letterboxed(root: Path, unlabelled: Path, tmp_path: Path) -> None:
    given = ("--codec", "uniform", "--codec-data", f"letterbox:folder:{unlabelled}")
    assert (result := run(root, *given, "--out", tmp_path)).exit_code == 0, result.output
    rows = table.load(tmp_path)
    assert rows.codec_data.str.match(r"letterbox:folder \w+$").all() and set(rows.status) == {"ok"}


@pytest.mark.parametrize("objective", ["mse", "task"])
def test_codecs_can_be_trained_on_images_without_labels(root: Path, unlabelled: Path, objective: str) -> None:
    options = (
        "--codec",
        "hyperprior",
        "--lambdas",
        "1",
        "--codec-data",
        f"folder:{unlabelled}",
        "--objective",
        objective,
    )
    for out in ("first", "again"):
        result = run(root, *options, "--out", root / f"{out}-{objective}")
        assert result.exit_code == 0, result.output
    first, again = (table.load(root / f"{out}-{objective}") for out in ("first", "again"))
    coded = first[first.codec == "hyperprior"]
    assert coded.codec_data.str.match(r"folder \w+$").all() and set(coded.objective) == {objective}
    assert set(first.dataset) == {"imagenet1k"} and set(first.n_train) == {6} and set(first.status) == {"ok"}
    pd.testing.assert_series_equal(first.value, again.value)
    own = run(root, *options[:4], "--objective", objective, "--out", root / f"own-{objective}")
    assert own.exit_code == 0, own.output
    of_own = table.load(root / f"own-{objective}")
    assert set(of_own.codec_data) == {""} and not set(of_own.point) & set(first.point)
    assert of_own[of_own.codec == "hyperprior"].n_bytes.iloc[0] != coded.n_bytes.iloc[0], "another codec"
    ends = [f[f.kind == "ceiling"].set_index("metric").value for f in (first, of_own)]
    pd.testing.assert_series_equal(*ends)


def test_codec_data_is_refused_where_something_else_is_trained(root: Path, unlabelled: Path, tmp_path: Path) -> None:
    given = ("--codec", "raw", "--codec-data", f"folder:{unlabelled}", "--out", tmp_path)
    for options, words in (
        ((*given, "--head", "trained"), "add --head tail"),
        ((*given[:3], "coco"), "--codec-data DATASET:DIR"),
    ):
        result = run(root, *options)
        assert result.exit_code == 1 and words in result.output, result.output
        assert len(result.output.splitlines()) < 5
