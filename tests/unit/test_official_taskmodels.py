"""Official task models, small configurations of the official classes: encoder and head together must be the model."""

from __future__ import annotations

import copy
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import CONFIGS, SAM2_OVERRIDES, blip_config, depth_config, pose_config
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import VOID, Pose
from fcbench.core.tasks import Task, TaskModel
from fcbench.encoders.shared import huggingface
from fcbench.encoders.shared.padded import IMAGENET
from fcbench.encoders.shared.weights import file_sha256, load_state, load_weights, random_weights, seeded, state_sha256
from fcbench.taskmodels import blip, depth_anything, sam2_masks, vitpose
from fcbench.tasks.captioning import CaptioningTask
from fcbench.tasks.captioning.head import Vocabulary, words_of
from fcbench.tasks.captioning.metrics import Cider
from fcbench.tasks.depth import DepthTask
from fcbench.tasks.pose import PoseTask
from fcbench.tasks.segmentation import SegmentationTask

transformers = pytest.importorskip("transformers", reason="needs pip install fcbench[transformers]")
CPU = torch.device("cpu")
IMAGE_PX = (64, 48)
NAMES = ("depth_anything", "vitpose", "blip", "sam2_masks")
CAPTIONS = (("A red cube left of a cone.", "A cube and a cone"), ("Two green spheres!", "A pair of spheres"))


def targets_of(i: int) -> dict[str, Any]:
    """Targets of every task, for image 0 or 1."""
    height, width = IMAGE_PX
    classes = np.full(IMAGE_PX, i, np.uint8)
    classes[height // 2 :, : width // 2] = 2
    classes[: height // 8] = VOID
    depth = np.full(IMAGE_PX, 1.0 + i, np.float32)
    depth[:, width // 2 :] += 2
    depth[:, -6:] = 0
    rng = np.random.default_rng(i)
    low, high = np.asarray([8.0, 10.0]), np.asarray([40.0, 58.0])
    xy = rng.uniform(low, high, (1, 17, 2))
    keypoints = np.concatenate([xy, np.full((1, 17, 1), 2)], -1).astype(np.float32)
    boxes = np.concatenate([low, high]).astype(np.float32)[None]
    return {
        "segmentation": classes,
        "depth": depth,
        "pose": Pose(keypoints, boxes, np.full(1, 900, np.float32)),
        "captioning": CAPTIONS[i],
    }


# ------------------------------------------------------------------------------ small official models
def sam2_model() -> Any:
    return copy.deepcopy(_sam2_model())


@functools.cache
def _sam2_model() -> Any:
    with seeded():
        model = sam2_masks.official_model("tiny", 64, SAM2_OVERRIDES)
        nn.init.normal_(model.no_mem_embed, std=0.5)
    return model


def task_of(name: str) -> Task:
    if name == "depth_anything":
        return DepthTask(10.0, 0.0, 1.0)
    if name == "vitpose":
        return PoseTask()
    if name == "blip":
        references = [tuple(words_of(c) for c in r) for r in CAPTIONS]
        vocabulary = Vocabulary.count(w for r in references for w in r)
        return CaptioningTask(vocabulary, 10, Cider(references))
    return SegmentationTask(3)


def build(name: str, weights: str = "random", config: Any = None, image_px: tuple[int, int] = IMAGE_PX) -> TaskModel:
    """The small model of a name."""
    task = task_of(name)
    if name == "sam2_masks":
        model = sam2_model()
        info = load_weights(model, name, None if weights == "random" else (Path(weights), f"file:{Path(weights).name}"))
        return sam2_masks.build_from_model(name, model, info, image_px, CPU)
    module: Any = {"depth_anything": depth_anything, "vitpose": vitpose, "blip": blip}
    config = config or CONFIGS[name]()
    return module[name].PLUGIN.from_config(name, config, weights, task, image_px, CPU)


@dataclass
class Case:
    name: str
    model: TaskModel
    head: Any
    images: Tensor
    x: dict[str, Tensor]
    batch: Any


def images_of(n: int, size: tuple[int, int] = IMAGE_PX) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    model = build(request.param)
    batch = task_of(request.param).collate([targets_of(0), targets_of(1)])
    images = images_of(2)
    x = model.encoder(images, model.inputs).maps
    return Case(request.param, model, model.head(), images, x, batch)


# ------------------------------------------------------------------------------------ all of them
def test_own_features_are_what_the_specs_and_grids_promise(case: Case) -> None:
    encoder, shapes = case.model.encoder, case.head.shapes
    assert tuple(encoder.specs) == case.model.inputs == tuple(case.x) == tuple(shapes)
    assert encoder.default_split_point in encoder.specs and encoder.groups == {}
    for name, spec in encoder.specs.items():
        assert spec.name == name and spec.stride_px >= 1
        assert case.x[name].shape == (2, *shapes[name]) and shapes[name][0] == spec.channels
        assert case.x[name].dtype == torch.float32
        assert case.x[name].is_contiguous() and not case.x[name].requires_grad
        assert not torch.equal(case.x[name][0], case.x[name][1])
    strides = [s.stride_px for s in encoder.specs.values()]
    assert strides == sorted(strides)
    first = case.model.inputs[0]
    assert list(encoder(case.images, [first]).maps) == [first]


def test_the_decoder_is_frozen_and_gradients_reach_its_inputs(case: Case) -> None:
    x = {n: m.clone().requires_grad_() for n, m in case.x.items()}
    before = state_sha256(case.head)
    own = state_sha256(case.model.encoder.module)
    case.head.train()
    assert not any(m.training for m in case.head.modules() if m is not case.head)
    optimizer = torch.optim.SGD([*x.values()], 1e-2)
    case.head.loss(x, case.batch).backward()
    optimizer.step()
    case.head.eval()
    assert state_sha256(case.head) == before
    assert state_sha256(case.model.encoder.module) == own
    assert not any(p.requires_grad for p in case.head.parameters())
    assert not any(p.requires_grad for p in case.model.encoder.module.parameters())
    for name, m in x.items():
        assert m.grad is not None and m.grad.abs().sum() > 0, name
        assert not torch.equal(m.detach(), case.x[name])


def test_training_on_the_inputs_lowers_the_loss(case: Case) -> None:
    generator = torch.Generator().manual_seed(0)
    x = {n: (m + torch.randn(m.shape, generator=generator) * m.std()).requires_grad_() for n, m in case.x.items()}
    optimizer = torch.optim.Adam([*x.values()], 0.02)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = case.head.loss(x, case.batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_the_task_reads_what_it_predicts(case: Case) -> None:
    task: Any = task_of(case.name)
    rows = task.statistics(case.head.predict(case.x, case.batch), case.batch)
    assert rows.shape == (2, task.n_statistics) and np.isfinite(rows).all()
    again = task.statistics(case.head.predict(case.x, case.batch), case.batch)
    np.testing.assert_array_equal(rows, again)


def test_the_prediction_is_in_the_features(case: Case) -> None:
    noise = {n: torch.randn_like(m) * m.std() * 3 for n, m in case.x.items()}
    a, b = (case.head.predict(x, case.batch) for x in (case.x, noise))
    assert str(a) != str(b)


def test_inputs_that_do_not_fit_are_refused(case: Case) -> None:
    first, *_ = case.model.inputs
    with pytest.raises(FcbenchError, match=f"needs the map '{first}'"):
        case.head.predict({}, case.batch)
    wrong = {**case.x, first: case.x[first][:, :1]}
    with pytest.raises(FcbenchError, match="expects .* of shape"):
        case.head.loss(wrong, case.batch)


def test_images_of_another_size_and_unknown_splits_are_refused(case: Case) -> None:
    encoder = case.model.encoder
    with pytest.raises(FcbenchError, match="built for images of 64x48"):
        encoder(images_of(1, (64, 64)), case.model.inputs)
    with pytest.raises(FcbenchError, match="Did you mean"):
        encoder(case.images, [case.model.inputs[0] + "x"])


def test_random_weights_are_those_of_the_seed_and_say_so(case: Case) -> None:
    torch.manual_seed(7)
    again = build(case.name)
    assert again.weights == case.model.weights == again.encoder.weights
    assert again.weights.origin == "random(seed=0)"
    assert state_sha256(again.head()) == state_sha256(case.head)


# ----------------------------------------------------------------------------- weights and errors
def save(name: str, folder: Path) -> tuple[Path, nn.Module]:
    """An official checkpoint of other weights than the random ones: what to give as weights, and the model."""
    torch.manual_seed(5)
    if name == "sam2_masks":
        model: Any = sam2_model()
        for p in model.parameters():
            p.data += 0.01 * torch.randn_like(p)
        torch.save({"model": model.state_dict()}, folder / "sam2.1_hiera_tiny.pt")
        return folder / "sam2.1_hiera_tiny.pt", model
    if name == "depth_anything":
        model = transformers.DepthAnythingForDepthEstimation(depth_config())
    elif name == "vitpose":
        model = transformers.VitPoseForPoseEstimation(pose_config())
    else:
        tokenizer = blip.word_tokenizer(("a", "dog", "runs", "red", "cube", "of"))
        model = transformers.BlipForConditionalGeneration(blip.with_words(blip_config(), tokenizer))
        tokenizer.save_pretrained(folder)
    with huggingface.quiet():
        model.eval().save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("name", NAMES)
def test_saved_weights_come_back(name: str, tmp_path: Path) -> None:
    given, official = save(name, tmp_path)
    model = build(name, str(given))
    path = given if given.is_file() else given / "model.safetensors"
    assert model.weights.sha256 == file_sha256(path)
    assert model.weights.origin.startswith("file:")
    want = official.state_dict()
    for part in (model.head(), model.encoder.module):
        got = {t.data_ptr(): t for t in part.state_dict().values()}
        pool = [t for t in want.values()]
        for tensor in got.values():
            assert any(t.shape == tensor.shape and torch.equal(t, tensor) for t in pool)
    if given.is_dir():  # the file in the folder is the same
        assert build(name, str(path)).weights.sha256 == model.weights.sha256


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_architecture_are_refused(name: str, tmp_path: Path) -> None:
    given, _ = save(name, tmp_path)
    path = given if given.is_file() else given / "model.safetensors"
    state = load_state(path)
    del state[next(k for k in state if "bias" in k)]
    key = next(k for k in state if k.endswith("weight"))
    state[key] = torch.zeros(3, 5)
    if given.is_file():
        torch.save({"model": state}, path)
    else:
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in state.items()}, path)
    with pytest.raises(FcbenchError, match="1 missing.*1 of another shape") as caught:
        build(name, str(given))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FcbenchError, match="nowhere.safetensors not found"):
        load_state(_find(name, str(tmp_path / "nowhere.safetensors")))
    import huggingface_hub as hub

    class NoNet:
        def head(self, *_: Any, **__: Any) -> None:
            raise OSError("no network")

    monkeypatch.setattr(hub, "get_session", lambda: NoNet())
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(FcbenchError, match="would download .*--weights FILE") as caught:
        registry.get("taskmodel", name).build("", None, task_of(name), IMAGE_PX, CPU)
    assert "\n" not in str(caught.value)


def _find(name: str, weights: str) -> Path:
    if name == "sam2_masks":
        return Path(weights)
    return huggingface.find(name, weights, "")[0]


@pytest.mark.parametrize("name", NAMES[:3])
def test_half_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="holds none of model.safetensors"):
        build(name, str(tmp_path))
    save(name, tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(FcbenchError, match="is of a 'bert' model"):
        build(name, str(tmp_path))
    (tmp_path / "config.json").write_text(text[:40], encoding="utf-8")
    with pytest.raises(FcbenchError, match="cannot be read"):
        build(name, str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(FcbenchError, match="no config.json beside"):
        build(name, str(tmp_path))


def test_blip_weights_without_their_tokenizer_are_refused(tmp_path: Path) -> None:
    save("blip", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FcbenchError, match="no tokenizer"):
        build("blip", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_tasks_and_variants_are_named(name: str) -> None:
    plugin = registry.get("taskmodel", name)
    other = task_of("vitpose" if name != "vitpose" else "sam2_masks")
    with pytest.raises(FcbenchError, match=f"was trained for {plugin.task}"):
        plugin.build("", "random", other, IMAGE_PX, CPU)
    with pytest.raises(FcbenchError, match="unknown variant"):
        plugin.build("giant", "random", task_of(name), IMAGE_PX, CPU)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in NAMES[:3]:
        with pytest.raises(FcbenchError, match=r"pip install fcbench\[transformers\]"):
            registry.get("taskmodel", name).build("", "random", task_of(name), IMAGE_PX, CPU)


@pytest.mark.parametrize("module", [depth_anything, vitpose, blip])
def test_every_variant_has_an_official_configuration(module: Any) -> None:
    for variant in module.REPOS:
        config = module.default_config(variant)
        again = type(config).from_dict(config.to_dict())
        assert again.to_dict() == config.to_dict(), variant


# ------------------------------------------------------------------------------------------- depth
@pytest.mark.parametrize("kind", ["metric", "relative"])
@pytest.mark.parametrize("size", [(64, 48), (40, 90)], ids=str)
def test_depth_is_the_official_model(kind: str, size: tuple[int, int]) -> None:
    config = depth_config(kind)
    ours = build("depth_anything", config=config, image_px=size)
    with seeded():
        official = transformers.DepthAnythingForDepthEstimation(config).eval()
    images = images_of(2, size)
    processor = transformers.DPTImageProcessor(
        size={"height": 56, "width": 56},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        image_mean=IMAGENET[0],
        image_std=IMAGENET[1],
    )
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        want = official(pixels).predicted_depth
        got = ours.head()(ours.encoder(images, ours.inputs).maps)
    assert want.std() > 1e-4
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_metric_predictions_take_only_the_size_from_the_batch() -> None:
    model = build("depth_anything")
    x = model.encoder(images_of(2), model.inputs).maps
    head: Any = model.head()
    a, b = (head.predict(x, torch.full((2, *IMAGE_PX), v)) for v in (1.0, 3.0))
    assert torch.equal(a, b) and a.shape == (2, *IMAGE_PX)
    assert (a > 0).all() and (a <= 10).all()


def test_relative_depth_is_fitted_to_the_ground_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 4 * torch.rand(2, 6, 5, generator=generator)
    inverse = 7 / depth + 3  # any scale, any shift
    target = depth.clone()
    target[:, 0] = 0  # invalid
    got = 1 / depth_anything.fit_inverse_depth(inverse, target)
    torch.testing.assert_close(got, depth, rtol=1e-3, atol=1e-3)
    flat = depth_anything.fit_inverse_depth(torch.ones(1, 2, 2), torch.full((1, 2, 2), 4.0))
    torch.testing.assert_close(flat, torch.full((1, 2, 2), 0.25))
    none = depth_anything.fit_inverse_depth(inverse, torch.zeros_like(depth))
    assert torch.isfinite(none).all()


def test_scale_invariant_loss_forgives_half_of_a_common_factor() -> None:
    target = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    at = depth_anything.scale_invariant_loss
    assert float(at(target.clamp(min=1), target)) < 1e-5
    doubled = float(at(2 * target.clamp(min=1), target))
    assert doubled == pytest.approx(np.log(2) * np.sqrt(0.5), rel=1e-5)


# -------------------------------------------------------------------------------------------- pose
@pytest.mark.parametrize(("simple", "experts"), [(True, 1), (False, 1), (False, 3)])
def test_pose_on_a_persons_own_crop_is_the_official_model(simple: bool, experts: int) -> None:
    config = pose_config(simple, experts)
    ours = build("vitpose", config=config)
    with seeded():
        official = transformers.VitPoseForPoseEstimation(config).eval()
    images = images_of(2)
    processor = transformers.VitPoseImageProcessor(size={"height": 64, "width": 48}, do_affine_transform=False)
    pixels = processor(list(images), boxes=None, return_tensors="pt")["pixel_values"]
    expert = torch.zeros(2, dtype=torch.long) if experts > 1 else None
    head: Any = ours.head()
    with torch.no_grad():
        want = official(pixels, dataset_index=expert).heatmaps
        tokens = ours.encoder(images, ["tokens"]).maps["tokens"]
        whole = torch.tensor([[0.0, 0.0, 48.0, 64.0]]).repeat(2, 1)
        got = head.heatmaps(tokens, torch.arange(2), whole)
    assert want.std() > 1e-4
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_interpolated_positions_keep_the_whole_image() -> None:
    small, large = build("vitpose"), build("vitpose", image_px=(100, 161))
    assert large.encoder(images_of(1, (100, 161)), ["tokens"]).shapes == {"tokens": (7, 11)}
    assert small.encoder(images_of(1), ["tokens"]).shapes == {"tokens": (4, 3)}


def test_crops_are_the_official_ones() -> None:
    processing = sys.modules["transformers.models.vitpose.image_processing_vitpose"]
    boxes = torch.tensor([[10.0, 20.0, 40.0, 50.0], [5.0, 5.0, 15.0, 95.0]])
    centre, size = vitpose.crops(boxes, (256, 192))
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        coco = (x0, y0, x1 - x0, y1 - y0)
        want, scale = processing.box_to_center_and_scale(coco, 192, 256)
        np.testing.assert_allclose(centre[i].numpy(), want, rtol=1e-5)
        np.testing.assert_allclose(size[i].numpy(), scale * 200, rtol=1e-5)
    # a crop whose pixel centres are the image's own covers the image from edge to edge
    exact = torch.tensor([[0.0, 0.0, 191.0, 254.0]])
    middle, extent = exact[:, :2] + exact[:, 2:] / 2, exact[:, 2:] / vitpose.PADDING
    box = torch.cat([middle - extent / 2, middle + extent / 2], 1)
    area = vitpose.regions(box, (256, 192))[0].tolist()
    assert area == pytest.approx([0, 0, 192, 255], abs=0.5)
    assert area[0::2] == pytest.approx([0, 192], abs=1e-3)


class _Ideal(nn.Module):
    """In place of the decoder: the target heat maps."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, cut: Tensor) -> Tensor:
        return self.maps


def test_ideal_heat_maps_give_the_keypoints_back() -> None:
    head: Any = build("vitpose", image_px=(120, 100)).head()
    rng = np.random.default_rng(0)
    boxes = np.asarray([[10, 20, 70, 110], [30, 15, 90, 60]], np.float32)
    span = boxes[:, None, 2:] - boxes[:, None, :2]
    xy = boxes[:, None, :2] + rng.uniform(0.1, 0.9, (2, 17, 2)) * span
    keypoints = np.concatenate([xy, np.full((2, 17, 1), 2)], -1).astype(np.float32)
    pose = Pose(keypoints, boxes, np.full(2, 900, np.float32))
    batch = PoseTask().collate([{"pose": pose}])
    size = (64, 48)  # the official heat map's
    at = vitpose.on_heatmap(batch.keypoints[..., :2], batch.boxes, head.crop_px, size)
    head.decoder = _Ideal(vitpose.gaussians(at, size))
    x = {"tokens": torch.zeros(1, 32, *head.shapes["tokens"][1:])}
    assert float(head.loss(x, batch)) == pytest.approx(0, abs=1e-8)
    got, scores = head.predict(x, batch)
    assert np.abs(got.numpy() - xy).max() < 0.2  # px; DARK takes the Gaussian as sampled
    assert ((scores > 0.8) & (scores <= 1)).all()


def test_no_person_is_no_prediction_and_no_loss() -> None:
    model = build("vitpose")
    head: Any = model.head()
    empty = Pose(*(np.zeros(s, np.float32) for s in ((0, 17, 3), (0, 4), (0,))))
    batch = PoseTask().collate([{"pose": empty}])
    x = {"tokens": model.encoder(images_of(1), ["tokens"]).maps["tokens"]}
    x["tokens"].requires_grad_()
    head.loss(x, batch).backward()
    assert x["tokens"].grad is not None and float(x["tokens"].grad.abs().sum()) == 0
    keypoints, scores = head.predict(x, batch)
    assert keypoints.shape == (0, 17, 2) and scores.shape == (0,)


# --------------------------------------------------------------------------------------- captioning
def test_captioning_is_the_official_model(tmp_path: Path) -> None:
    given, official = save("blip", tmp_path)
    ours = build("blip", str(given))
    head: Any = ours.head()
    images = images_of(2)
    processor = transformers.BlipImageProcessor(size={"height": 64, "width": 64})
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    task = task_of("blip")
    captions = ["a dog runs", "a red cube of a dog"]
    batch = task.collate([{"captioning": (c,)} for c in captions])
    x = ours.encoder(images, ours.inputs).maps
    tokens, mask = head.tokenize(captions)
    model: Any = official
    with torch.no_grad():
        want = model(
            pixel_values=pixels, input_ids=tokens, attention_mask=mask, labels=tokens.masked_fill(mask == 0, -100)
        )
        said = model.generate(pixel_values=pixels, do_sample=False, num_beams=1, max_new_tokens=blip.MAX_TOKENS)
        torch.testing.assert_close(head.image_tokens(x), want.image_embeds, atol=1e-4, rtol=1e-4)
        assert float(head.loss(x, batch)) == pytest.approx(float(want.loss), rel=1e-5)
    decoded = head.tokenizer.batch_decode(said, skip_special_tokens=True)
    got = head.predict(x, batch)
    assert got == [t.strip() for t in decoded] and any(got)


def test_in_training_one_reference_an_image_is_drawn() -> None:
    head: Any = build("blip").head()
    batch = task_of("blip").collate([targets_of(0), targets_of(1)])
    assert len(head._references(batch)[1]) == 4
    head.train()
    torch.manual_seed(0)
    image, captions = head._references(batch)
    assert image.tolist() == [0, 1] and len(captions) == 2
    drawn = {tuple(head._references(batch)[1]) for _ in range(20)}
    assert len(drawn) > 1
    head.eval()


def test_references_keep_the_punctuation_of_blips_training() -> None:
    head: Any = build("blip").head()
    batch = task_of("blip").collate([{"captioning": ('A man\'s "red-hot" stove, lit.', "(A dog) runs!\n")}])
    assert head.eval()._references(batch)[1] == ["a man's red-hot stove, lit", "a dog runs"]


def test_the_word_tokenizer_knows_the_vocabulary() -> None:
    tokenizer = blip.word_tokenizer(("red", "cube"))
    ids = tokenizer("red cube unheard")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "red", "cube", "[UNK]", "[SEP]"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "red cube"


# ------------------------------------------------------------------------------------- segmentation
def test_masks_are_those_of_the_official_predictor() -> None:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    model = sam2_model()
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(16, 16), (8, 8), (4, 4)]  # it assumes 1024 px
    info = random_weights(model)
    ours = sam2_masks.build_from_model("sam2_masks", model, info, IMAGE_PX, CPU)
    images = images_of(1)
    predictor.set_image(images[0].permute(1, 2, 0).numpy())
    click = (13, 40)
    masks, scores, low = predictor.predict(
        np.asarray([click]), np.asarray([1]), multimask_output=True, return_logits=True
    )
    x = ours.encoder(images, ours.inputs).maps
    torch.testing.assert_close(x["image_embed"], predictor.get_image_embedding())
    head: Any = ours.head()
    at = torch.tensor([[click[0] / 48 * 64, click[1] / 64 * 64]])
    with torch.no_grad():
        logits, iou = head(x, at)
    np.testing.assert_allclose(logits[0].numpy(), low, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(iou[0].numpy(), scores, atol=1e-5, rtol=1e-4)
    full = F.interpolate(logits, IMAGE_PX, mode="bilinear")[0]
    np.testing.assert_allclose(full.numpy(), masks, atol=1e-4, rtol=1e-4)


def test_several_clicks_are_as_many_single_ones() -> None:
    model = build("sam2_masks")
    x = model.encoder(images_of(1), model.inputs).maps
    head: Any = model.head()
    clicks = torch.tensor([[5.0, 6.0], [40.0, 20.0], [50.0, 60.0]])
    with torch.no_grad():
        together = head(x, clicks)[0]
        alone = torch.cat([head(x, c[None])[0] for c in clicks])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_regions_are_the_large_components_with_their_deepest_pixel() -> None:
    classes = np.full((40, 40), VOID, np.uint8)
    classes[:21, :21] = 1
    classes[30:39, 30:39] = 1
    classes[2, 30] = 2  # one pixel: less than the share
    regions = sam2_masks.regions_of(classes)
    assert [(r.label, r.click_px) for r in regions] == [(1, (10, 10)), (1, (34, 34))]
    assert all(r.mask[r.click_px[1], r.click_px[0]] for r in regions)
    assert sam2_masks.regions_of(np.full((4, 4), VOID, np.uint8)) == []
    many = np.indices((40, 40)).sum(0) // 2 % 2
    stripes = sam2_masks.regions_of(many.astype(np.uint8))
    assert len(stripes) == sam2_masks.MAX_REGIONS


def test_each_pixel_gets_the_class_of_the_largest_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    head: Any = build("sam2_masks").head()
    classes = torch.zeros(2, *IMAGE_PX, dtype=torch.uint8)
    classes[0, :, 24:] = 2
    classes[1] = VOID
    left = torch.linspace(1, -2, 12).expand(1, 16, 12)
    masks = torch.stack([left, -left - 1]).repeat(1, 3, 1, 1)
    masks[:, [0, 2]] = 9  # the other masks, with lower scores
    masks[0, 0], masks[1, 2] = -9, 9
    scores = torch.tensor([[0.1, 0.9, 0.2]] * 2)
    monkeypatch.setattr(type(head), "forward", lambda *_: (masks, scores))
    x = {n: torch.zeros(2, *s) for n, s in head.shapes.items()}
    out = head.predict(x, classes)
    assert out.shape == classes.shape and (out[1] == 0).all()
    assert (out[0, :, :20] == 0).all() and (out[0, :, 28:] == 2).all()


def test_mask_loss_is_that_of_the_best_mask() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    right = (target - 0.5) * 40
    logits = torch.cat([right, -right, torch.zeros_like(right)], 1)
    truth = torch.tensor([[1.0, 0.0, 0.0]])
    assert float(sam2_masks.mask_loss(logits, truth, target)) == pytest.approx(0, abs=1e-3)
    worse = sam2_masks.mask_loss(logits[:, 1:], truth[:, 1:], target)
    assert float(worse) > 0.3


@pytest.mark.parametrize("typed", ["tiny@100", "tiny@", "small@x"])
def test_sides_that_no_patch_divides_are_refused(typed: str) -> None:
    with pytest.raises(FcbenchError, match="multiple of 32"):
        sam2_masks.parse(typed)
    assert sam2_masks.parse("@512") == ("tiny", 512)
