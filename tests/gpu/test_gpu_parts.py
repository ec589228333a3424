"""Encoders, readouts, codecs and task models: on a GPU what they are on the CPU, within float32's last bits."""

from __future__ import annotations

import copy
import importlib
import runpy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.tasks import ScaledHead
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.statistics import stats_of
from fcbench.measure.density import Scorer
from fcbench.testing.codecs import make, middle
from fcbench.testing.encoders import images
from fcbench.testing.fake_data import FakeDataset
from fcbench.testing.maps import ONE, TWO, batches, features, statistics
from fcbench.training.codec import fit_codec
from fcbench.training.options import Budget
from fcbench.training.readout import Adapter, Readout, fit_readout
from fcbench.training.targets import Targets

HERE = Path(__file__).parent
COMPARED: dict[str, Any] = runpy.run_path(str(HERE / "compared.py"))
SMALL: dict[str, Any] = runpy.run_path(str(HERE.parent / "unit" / "small_models.py"))
difference, on_both = COMPARED["difference"], COMPARED["on_both"]

CPU = torch.device("cpu")
ENCODERS = {
    "hiera_nano": None,
    "sam2_nano": None,
    "sam2:tiny": "random",
    "hiera": "random",
    "timm:tf_efficientnet_lite0": "random",
    "timm:vit_tiny_patch16_224": "random",
}
"""Those that need no download -> their weights."""
LEARNED = [n for n in registry.names("codec") if registry.get("codec", n).trained]
TASKS = FakeDataset.tasks
BUDGET = Budget(task_steps=3, task_batch=4, codec_steps=3, codec_batch=4, width=32)
WIDTH = BUDGET.width
N = 6


@pytest.mark.parametrize("name", ENCODERS)
def test_features_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    there, here = (registry.build_encoder(name, ENCODERS[name], d) for d in (device, CPU))
    names = list(here.specs)
    got, expected = (e(images(2, (97, 130)), names).maps for e in (there, here))
    assert all(m.device.type == device.type for m in got.values())
    assert max(difference(got[n], expected[n]) for n in names) < 1e-4


def feature_set(n: int = N, size_px: tuple[int, int] = (64, 64)) -> FeatureSet:
    """Random features of `FakeDataset`, of two maps."""
    maps = dict(zip((s.name for s in TWO), batches(TWO, n, (4, 4), seed=1)))
    grids = {name: (int(m.shape[2]), int(m.shape[3])) for name, m in maps.items()}
    samples = tuple(SampleInfo(str(i), i, size_px) for i in range(n))
    return FeatureSet("fake", samples, (), size_px, {s.name: s for s in TWO}, grids, maps)


def readout(task: Any, found: FeatureSet, neck: str = "neck_2L") -> Readout:
    torch.manual_seed(0)
    built = registry.get("neck", neck).build(list(found.specs.values()), found.grids, WIDTH)
    return Readout(stats_of(found), built, task.head(WIDTH, found.finest[1], found.image_px))


def bound(name: str) -> tuple[Any, Targets]:
    data = FakeDataset(N)
    return registry.get("task", name).build(data, data), Targets(data, name)


@pytest.mark.parametrize("neck", registry.names("neck"))
@pytest.mark.parametrize("name", TASKS)
def test_a_readout_learns_as_on_the_cpu(name: str, neck: str, device: torch.device) -> None:
    task, targets = bound(name)
    found = feature_set()
    model, batch = readout(task, found, neck), task.collate(targets(range(N)))
    loss, gradient = on_both(model, device, lambda m: m.head.loss(m(found.batch(range(N))), batch))
    assert loss < 1e-4 and gradient < 1e-3


@pytest.mark.parametrize("name", TASKS)
def test_a_readout_predicts_as_on_the_cpu(name: str, device: torch.device) -> None:
    """Likelihoods, and the statistics of predictions but for captions: a word of a near tie changes all that follow."""
    task, targets = bound(name)
    found, batch = feature_set(), task.collate(targets(range(N)))
    model = readout(task, found).eval()
    stats, likelihoods = [], []
    with torch.inference_mode():
        for where in (device, CPU):
            m = copy.deepcopy(model).to(where)
            x = m(found.batch(range(N)))
            stats.append(task.statistics(m.head.predict(x, batch), batch))
            stated = partial(m.head.log_density, scale=0.2) if isinstance(m.head, ScaledHead) else m.head.log_likelihood
            likelihoods.append(Scorer(stated)(x, batch))
    np.testing.assert_allclose(likelihoods[0], likelihoods[1], rtol=1e-3, atol=1e-3)
    assert all(np.isfinite(s).all() and s.shape == (N, task.n_statistics) for s in stats)
    if name != "captioning":
        assert np.mean(~np.isclose(stats[0], stats[1], rtol=1e-3, atol=1e-3)) < 0.02, "some argmax of a tie may differ"


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("specs", [ONE, TWO], ids=["one", "two"])
def test_a_codec_learns_as_on_the_cpu(name: str, specs: Sequence[Any], device: torch.device) -> None:
    """In evaluation mode: training draws its noise on the device. A latent at .5 may fall to the other side."""
    codec = make(name, tuple(specs), middle(name))
    maps = dict(zip((s.name for s in specs), batches(specs, 4, (8, 8), seed=5)))

    def loss(one: Any) -> Tensor:
        where = next(one.parameters()).device
        return step_loss(one, {k: v.to(where) for k, v in maps.items()})

    difference_of_loss, gradient = on_both(codec, device, loss)
    assert difference_of_loss < 1e-3 and gradient < 2e-2


def step_loss(codec: Any, maps: Mapping[str, Tensor]) -> Tensor:
    """As `fcbench.testing.codecs.loss_of`, whose statistics are the CPU's."""
    decoded, bits = codec(maps)
    errors = [
        ((decoded[k] - x) / statistics(x.cpu()).std.to(x.device)[:, None, None]).square().mean()
        for k, x in maps.items()
    ]
    return bits.sum() / sum(x.numel() for x in maps.values()) + torch.stack(errors).mean()


@pytest.mark.parametrize("name", LEARNED)
def test_a_frozen_codec_gives_the_same_bytes_after_a_visit(name: str, device: torch.device) -> None:
    codec = make(name, TWO, middle(name))
    x = features(TWO, (5, 7))
    before = codec.encode(x)
    codec.to(device)
    codec.to("cpu")
    after = codec.encode(x)
    assert after == before
    decoded = codec.decode(after.payload, x.shapes).features.maps
    again = make(name, TWO, middle(name)).decode(before.payload, x.shapes).features.maps
    assert all(torch.equal(decoded[k], again[k]) for k in again)


@pytest.mark.parametrize("objective", ["mse", "both"])
@pytest.mark.parametrize("name", LEARNED)
def test_a_codec_is_trained_there_and_codes_here(
    name: str, objective: Any, device: torch.device, tmp_path: Path
) -> None:
    task, targets = bound("depth")
    found = feature_set()
    model, stats = readout(task, found).to(device).eval().requires_grad_(False), stats_of(found)
    plugin = registry.get("codec", name)
    torch.manual_seed(0)
    codec: Any = plugin.build(list(TWO), stats, middle(name))
    codec.prepare([found.arrays[s.name] for s in TWO])

    def task_loss(maps: Mapping[str, Tensor], indices: Sequence[int]) -> Tensor:
        loss: Tensor = model.head.loss(model(maps), task.collate(targets(indices)))
        return loss

    lmbdas = (0.5, 5.0) if plugin.variable else (1.0, 1.0)
    record = fit_codec(
        codec,
        lmbdas,
        found,
        stats,
        BUDGET,
        objective=objective,
        task_loss=task_loss,
        device=device,
        seed=0,
        resume=tmp_path / "codec.resume",
    )
    assert np.isfinite(record.loss)
    if plugin.variable:
        codec.at(1.0)
    codec.freeze()
    assert {t.device.type for t in codec.state_dict().values()} == {"cpu"}
    x = found.maps(0)
    stream = codec.encode(x)
    assert codec.decode(stream.payload, x.shapes).check == stream.check


def test_a_training_resumes_there(device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer's state comes from a checkpoint, on the CPU, and goes to the device."""
    task, targets = bound("depth")
    found, resume = feature_set(), tmp_path / "readout.resume"

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stopped

    def fit(model: Readout, advance: Any = None) -> None:
        fit_readout(model, task, found, targets, None, "task", BUDGET, seed=0, resume=resume, advance=advance)

    monkeypatch.setattr("fcbench.training.loop.CHECKPOINT_S", -1.0)
    whole, part = readout(task, found).to(device), readout(task, found).to(device)
    fit(whole)
    with pytest.raises(Stopped):
        fit(part, stop)
    assert resume.exists()
    again = readout(task, found).to(device)
    fit(again)
    for key, value in whole.state_dict().items():
        assert difference(again.state_dict()[key], value) < 1e-3, key


def task_model(kind: str, task: Any, where: torch.device, patch: pytest.MonkeyPatch) -> Any:
    """With random weights, SAM 2 a small one."""
    variant = ""
    if kind == "sam2_masks":
        module, variant = importlib.import_module("fcbench.taskmodels.sam2_masks"), "tiny@64"
        small = partial(module.official_model, overrides=SMALL["SAM2_OVERRIDES"])
        patch.setattr(module, "official_model", small)
    return registry.get("taskmodel", kind).build(variant, "random", task, (64, 64), where)


MODELS = [n for n in registry.names("taskmodel") if n.startswith("nano_")] + ["sam2_masks"]


@pytest.mark.parametrize("neck_loss", ["task", "distill", "both"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_frozen_decoder_teaches_a_neck(
    kind: str, neck_loss: Any, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, targets = bound(registry.get("taskmodel", kind).task)
    found = feature_set()
    model = task_model(kind, task, device, monkeypatch)
    seen = model.encoder(images(N, (64, 64)), model.inputs).maps
    own = FeatureSet(
        "own",
        found.samples,
        (),
        found.image_px,
        {k: model.encoder.specs[k] for k in seen},
        {k: (int(v.shape[2]), int(v.shape[3])) for k, v in seen.items()},
        {k: v.cpu() for k, v in seen.items()},
    )
    neck = registry.get("neck", "neck_2L").build(list(found.specs.values()), found.grids, WIDTH)
    adapter = Adapter(WIDTH, found.finest[1], stats_of(own), own.grids)
    readout = Readout(stats_of(found), neck, model.head(), adapter).to(device)
    record = fit_readout(readout, task, found, targets, own, neck_loss, BUDGET, seed=0, resume=tmp_path / "r")
    assert np.isfinite(record.loss)
    batch = task.collate(targets(range(N)))
    with torch.inference_mode():
        rows = task.statistics(readout.head.predict(readout(found.batch(range(N))), batch), batch)
    assert rows.shape == (N, task.n_statistics) and np.isfinite(rows).all()
