"""The contract of tasks, and the stricter rules of this house: metrics that are right where the answer is known."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DatasetMeta, Pose
from fcbench.core.tasks import ProbabilisticHead, Ranking, ScaledHead
from fcbench.tasks.captioning import CaptioningTask
from fcbench.testing.fake_data import FakeDataset
from fcbench.testing.tasks import TaskContract, bind, learned, measured, neck_output

TASKS = [name for name in registry.names("task") if not isinstance(registry.get("task", name), Ranking)]
"""Those with a head to be trained."""
GOOD = {"miou": 0.8, "rmse": 1.0, "pck": 0.8, "cider": 4.0, "top1": 0.99}
"""What a primary metric comes to on four samples that were learned by heart."""


class HouseRules(TaskContract):
    """Heads that state probabilities, metrics that become good, message texts."""

    def test_it_says_what_it_is(self, name: str) -> None:
        assert registry.summary("task", name)

    def test_a_head_states_probabilities_in_one_way(self, name: str) -> None:
        head = bind(name)[2]
        assert isinstance(head, ProbabilisticHead) != isinstance(head, ScaledHead)

    def test_learns_four_samples(self, name: str) -> None:
        task, targets, head = bind(name, n=4)
        losses, (begin, end) = learned(task, head, targets)
        assert losses[-1] < 0.5 * losses[0]
        primary = task.metrics[0]
        sign = 1 if primary.higher_is_better else -1
        assert sign * end > sign * begin and sign * end > sign * GOOD.get(primary.name, begin)

    def test_refuses_data_without_the_task(self, name: str) -> None:
        class Bare(FakeDataset):
            tasks = ("nothing",)

        with pytest.raises(FcbenchError, match=f"no targets for task '{name}'.*nothing"):
            registry.get("task", name).build(Bare(), Bare())


for _name in TASKS:
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (HouseRules,), {"plugin": _name})


for _name in ("detection", "instance_segmentation", "keypoint_detection"):
    _more = {"plugin": _name, "dataset": Path(__file__).with_name("squares.py")}
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (TaskContract,), _more)


class Test_ranking(TaskContract):
    plugin = Path(__file__).with_name("median.py")


def test_log_likelihoods_are_the_losses_terms() -> None:
    """Where the loss is a mean cross-entropy, the likelihoods sum to its negative times the number of terms."""
    counts = {
        "segmentation": lambda h, x, b: (h.at_centres(b, h(x).shape[-2:], 255) != 255),
        "classification": lambda h, x, b: torch.ones(len(x)),
        "pose": lambda h, x, b: h._cross_entropy(x, b)[1],
    }
    for name, count in counts.items():
        task, targets, head = bind(name)
        x, batch = neck_output(6), task.collate(targets)
        total = head.log_likelihood(x, batch).sum()
        terms = count(head, x, batch).sum()
        torch.testing.assert_close(-total / terms, head.loss(x, batch))


def test_captions_likelihood_is_the_mean_over_references() -> None:
    task, targets, head = bind("captioning", n=1)
    x, references = neck_output(1), targets[0]["captioning"]
    each = [head.log_likelihood(x, task.collate([{"captioning": (r,)}])) for r in references]
    both = head.log_likelihood(x, task.collate(targets))
    torch.testing.assert_close(both, torch.stack(each).mean(0))
    n_tokens = [len(r.split()) + 1 for r in references]
    loss = head.eval().loss(x, task.collate(targets))
    torch.testing.assert_close(-torch.stack(each).sum() / sum(n_tokens), loss)


def test_depth_density_integrates_to_one() -> None:
    task, _, head = bind("depth", n=2)
    x = neck_output(1)
    z = torch.linspace(-12, 12, 4001)
    at = head(x)[0, 0, 0, 0] / head.std
    total = 0.0
    for part in z.split(500):
        metres = ((at + part) * head.std).exp()
        batch = torch.zeros(len(part), 64, 64)
        batch[:, 2, 2] = metres.detach()  # under the centre of the first cell
        same = x.expand(len(part), -1, -1, -1)
        total += head.log_density(same, batch, 0.2).exp().sum().item()
    assert total * float(z[1] - z[0]) == pytest.approx(1, abs=1e-2)


def test_predictions_that_do_not_fit_are_refused() -> None:
    """A prediction of too little is an error, not a value."""
    wrong = {
        "segmentation": (torch.zeros(1, 64, 64, dtype=torch.uint8), "shape .1, 64, 64"),
        "depth": (torch.ones(2, 1, 64, 64), "shape .2, 1, 64, 64"),
        "pose": ((torch.zeros(0, 17, 2), torch.zeros(0)), "expected .1, 17, 2"),
        "captioning": (["a cube"], "1 captions for 2 images"),
    }
    for name, (out, message) in wrong.items():
        task, targets, _ = bind(name, n=2)
        with pytest.raises(FcbenchError, match=message):
            task.statistics(out, task.collate(targets))
    task, targets, _ = bind("captioning", n=2)
    batch = task.collate(targets)
    strings = [c[0] for c in batch.captions]
    words = [r[0] for r in batch.references]
    np.testing.assert_array_equal(task.statistics(strings, batch), task.statistics(words, batch))


def fixed(head: torch.nn.Module, out: torch.Tensor) -> torch.nn.Module:
    """The head, saying what it was given."""
    head.forward = lambda x: out
    return head


def test_perfect_segmentation() -> None:
    task, targets, head = bind("segmentation", n=4)
    batch = task.collate(targets)
    logits = torch.nn.functional.one_hot(batch.long().clamp(max=2), 3)
    head = fixed(head, logits.permute(0, 3, 1, 2).float())
    values = task.values(measured(task, head, neck_output(4), batch).sum(0))
    assert values == {"miou": 1.0, "pixel_accuracy": 1.0}


def test_perfect_depth() -> None:
    task, targets, head = bind("depth", n=4)
    batch = task.collate(targets)
    logs = torch.where(batch > 0, batch, 1.0).log()[:, None]
    head = fixed(head, logs)
    values = task.values(measured(task, head, neck_output(4), batch).sum(0))
    assert values["rmse"] < 1e-5 and values["abs_rel"] < 1e-6
    assert values["delta1"] == 1.0


def test_perfect_classification() -> None:
    task, targets, head = bind("classification", n=4)
    batch = task.collate(targets)
    head = fixed(head, torch.nn.functional.one_hot(batch, 7) * 100.0)
    values = task.values(measured(task, head, neck_output(4), batch).sum(0))
    assert values["top1"] == values["top5"] == 1.0
    assert values["nll"] == pytest.approx(0.0, abs=1e-9)


def test_perfect_pose() -> None:
    """Logits that are the log of each keypoint's bilinear weights decode to the keypoint itself."""
    from fcbench.tasks.pose import bilinear_targets

    task, targets, head = bind("pose", n=3)
    persons = [Pose(*(a[:1] for a in fields(t["pose"]))) for t in targets]
    batch = task.collate([{"pose": p} for p in persons])  # at most one an image
    inside = torch.ones(len(batch.boxes), 16, 16, dtype=torch.bool)
    cells, weight = bilinear_targets(batch.keypoints[..., :2], inside, (4.0, 4.0))
    rows = torch.full((len(batch.boxes), 17, 256), -60.0)
    rows.scatter_reduce_(2, cells, weight.clamp(min=1e-26).log(), "amax")
    logits = torch.zeros(3, 17, 16, 16)
    logits[batch.image] = rows.view(-1, 17, 16, 16)
    head = fixed(head, logits)
    values = task.values(measured(task, head, neck_output(3), batch).sum(0))
    assert values["pck"] == 1.0 and values["oks"] > 0.9999


def test_even_odds_cost_the_bits_of_a_choice() -> None:
    task, targets, head = bind("classification", n=4)
    values = task.values(measured(task, fixed(head, torch.zeros(4, 7)), neck_output(4), task.collate(targets)).sum(0))
    assert values["nll"] == pytest.approx(math.log2(7))


def persons(n: int, labelled: int = 17) -> Pose:
    """Persons side by side in an image of 64x64, the first keypoints of each labelled."""
    keypoints = np.zeros((n, 17, 3), np.float32)
    boxes = np.stack([[4 + 30 * i, 8, 24 + 30 * i, 56] for i in range(n)]).astype(np.float32)
    keypoints[..., 0], keypoints[..., 1] = boxes[:, :1] + np.linspace(1, 18, 17), np.linspace(10, 54, 17)
    keypoints[:, :labelled, 2] = 2
    return Pose(keypoints, boxes, np.full(n, 400, np.float32))


def test_all_persons_of_an_image_count() -> None:
    task, _, head = bind("pose", n=1)
    table = measured(task, head, neck_output(1), task.collate([{"pose": persons(2)}]))
    assert table[0, 1] == 2 * 17 and table[0, 3] == 2  # labelled keypoints, persons


def test_keypoints_that_are_not_labelled_teach_nothing() -> None:
    task, _, head = bind("pose", n=1)
    few, moved = persons(1, labelled=5), persons(1, labelled=5)
    moved.keypoints[:, 5:, :2] += 7
    losses = [head.loss(neck_output(1), task.collate([{"pose": p}])) for p in (few, moved)]
    assert losses[0] == losses[1]
    moved.keypoints[:, 0, :2] += 7
    assert head.loss(neck_output(1), task.collate([{"pose": moved}])) != losses[0]


def test_keypoints_are_found_in_their_persons_box() -> None:
    task, _, head = bind("pose", n=1)
    logits = torch.zeros(1, 17, 16, 16)
    logits[..., 15] = 50.0  # right edge of the image, outside the box
    batch = task.collate([{"pose": persons(1)}])
    predict: Any = fixed(head, logits).predict
    found, _ = predict(neck_output(1), batch)
    assert float(found[..., 0].max()) < 32


def fields(pose: Pose) -> tuple[np.ndarray, ...]:
    return pose.keypoints, pose.boxes, pose.areas


def test_perfect_captions() -> None:
    task, targets, head = bind("captioning", n=4)
    assert isinstance(task, CaptioningTask)
    batch = task.collate(targets)
    said = [r[0] for r in batch.references]
    rows = [torch.tensor([*task.vocabulary.encode(w), 1]) for w in said]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    values = task.values(measured(task, fixed(head, tokens), neck_output(4), batch).sum(0))
    assert values["bleu4"] == pytest.approx(1.0, abs=1e-6)
    assert values["cider"] > 7


def test_mask_refusals() -> None:
    task, targets, head = bind("segmentation", n=2)
    with pytest.raises(FcbenchError, match=r"class index 3; allowed are 0 to 2 and 255"):
        task.collate([{"segmentation": np.full((4, 4), 3, np.uint8)}])
    with pytest.raises(FcbenchError, match="class index -1"):
        task.collate([{"segmentation": np.full((4, 4), -1, np.int16)}])
    with pytest.raises(FcbenchError, match=r"shapes \[\(4, 4\), \(4, 5\)\]"):
        task.collate([{"segmentation": np.zeros(s, np.uint8)} for s in ((4, 4), (4, 5))])
    wrong = task.collate([{"segmentation": np.zeros((32, 64), np.uint8)}])
    for use in (head.loss, partial(measured, task, head)):
        with pytest.raises(FcbenchError, match="32x64 px .*64x64 px"):
            use(neck_output(1), wrong)


def test_depth_refusals() -> None:
    task, _, head = bind("depth", n=2)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(FcbenchError, match="negative, infinite or NaN"):
            task.collate([{"depth": np.full((4, 4), bad, np.float32)}])
    wrong = task.collate([{"depth": np.ones((32, 64), np.float32)}])
    for use in (head.loss, partial(measured, task, head)):
        with pytest.raises(FcbenchError, match="32x64 px .*64x64 px"):
            use(neck_output(1), wrong)


def test_data_set_refusals() -> None:
    empty, other = FakeDataset(), FakeDataset()
    empty.meta = DatasetMeta()
    other.meta = DatasetMeta(("a", "b"), ("a", "b"), 1.0)
    plugin = {t: registry.get("task", t) for t in TASKS}
    with pytest.raises(FcbenchError, match="names no segmentation classes"):
        plugin["segmentation"].build(empty, empty)
    with pytest.raises(FcbenchError, match="differ in their segmentation classes"):
        plugin["segmentation"].build(FakeDataset(), other)
    with pytest.raises(FcbenchError, match="names no labels"):
        plugin["classification"].build(empty, empty)
    with pytest.raises(FcbenchError, match="max_depth_m = None"):
        plugin["depth"].build(empty, empty)


def test_class_index_refusal() -> None:
    task, _, _ = bind("classification")
    with pytest.raises(FcbenchError, match="class index must be 0 to 6, got 7"):
        task.collate([{"classification": 7}])


def test_pose_shape_refusal_and_images_without_persons() -> None:
    task, _, head = bind("pose")
    none = Pose(*(np.zeros(s, np.float32) for s in ((0, 17, 3), (0, 4), (0,))))
    batch = task.collate([{"pose": none}] * 2)
    x = neck_output(2).requires_grad_()
    loss = head.loss(x, batch)
    loss.backward()
    assert loss == 0 and x.grad is not None
    np.testing.assert_array_equal(measured(task, head, x, batch), np.zeros((2, task.n_statistics)))
    wrong = Pose(none.keypoints, np.zeros((1, 4), np.float32), none.areas)
    with pytest.raises(FcbenchError, match=r"got \(\(0, 17, 3\), \(1, 4\)"):
        task.collate([{"pose": wrong}])


def test_captioning_refuses_missing_captions() -> None:
    task, _, _ = bind("captioning")
    for bad in ((), "a string"):
        with pytest.raises(FcbenchError, match="non-empty tuple of captions"):
            task.collate([{"captioning": bad}])
