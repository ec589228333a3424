"""Geometry of the dense heads, boxes and peaks of the pose head, words and decoder of the caption head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from fcbench.core.errors import FcbenchError
from fcbench.tasks.captioning.head import BOS, EOS, UNK, CaptionHead, Vocabulary, min_count, words_of
from fcbench.tasks.depth import MIN_DEPTH_M, DepthHead, DepthTask, log_depth_scale
from fcbench.tasks.pose import bilinear_targets, cells_in_boxes, peaks
from fcbench.tasks.shared.dense import DenseHead, coverage_px, n_doublings
from fcbench.testing.fake_data import FakeDataset

WORDS = Vocabulary(tuple("abcdefghijklmnopq"))


# ------------------------------------------------------------------------------------------- dense
def test_a_head_reads_a_repeated_sample_once() -> None:
    """A null model's constant: the same maps and gradients as of as many copies, at the cost of one."""
    head, seen = DenseHead(8, (4, 4), (64, 64), 3), list[int]()
    head.body.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    found = []
    for copies in (lambda x: x.expand(5, -1, -1, -1), lambda x: x.repeat(5, 1, 1, 1)):
        torch.manual_seed(0)
        x, weights = torch.randn(1, 8, 4, 4, requires_grad=True), torch.randn(5, 3, 16, 16)
        maps = head(copies(x))
        (maps * weights).sum().backward()
        assert x.grad is not None
        found.append((maps.detach().clone(), x.grad.clone()))
    assert seen == [1, 5]
    for once, each in zip(*found):
        torch.testing.assert_close(once, each)


@pytest.mark.parametrize(
    "grid, image_px, cover, doublings",
    [
        ((8, 8), (128, 128), (128, 128), 2),
        ((23, 30), (360, 480), (368, 480), 2),  # padded to whole strides
        ((22, 30), (360, 480), (360, 480), 2),  # not ceil: stretched over the image
        ((16, 16), (224, 224), (224, 224), 2),  # stride 14
        ((7, 7), (224, 224), (224, 224), 3),
        ((32, 32), (64, 64), (64, 64), 0),
        ((3, 5), (20, 33), (24, 40), 1),
    ],
)
def test_grid_geometry(
    grid: tuple[int, int], image_px: tuple[int, int], cover: tuple[int, int], doublings: int
) -> None:
    assert coverage_px(grid, image_px) == cover
    assert n_doublings(grid, image_px) == doublings
    head = DenseHead(8, grid, image_px, 3)
    out = head(torch.zeros(2, 8, *grid))
    assert out.shape == (2, 3, grid[0] * 2**doublings, grid[1] * 2**doublings)
    assert head.full(out).shape == (2, 3, *image_px)


def test_padded_grid_is_cropped_not_squeezed() -> None:
    head = DenseHead(8, (3, 3), (40, 40), 1)  # covers 48 px
    rows = torch.arange(12.0).view(1, 1, 12, 1).expand(1, 1, 12, 12)
    full = head.full(rows)[0, 0, :, 0]
    centres = (torch.arange(40) + 0.5) / 4 - 0.5
    torch.testing.assert_close(full, centres.clamp(min=0))


def test_centres_pick_the_pixel_under_the_cell_and_fill_outside() -> None:
    head = DenseHead(8, (3, 3), (40, 40), 1)
    target = torch.arange(40)[:, None].expand(40, 40)[None]
    picked = head.at_centres(target, (12, 12), -1)
    assert picked.shape == (1, 12, 12)
    assert picked[0, :, 0].tolist() == [*range(2, 40, 4), -1, -1]
    assert (picked[0, :, -2:] == -1).all()


# ------------------------------------------------------------------------------------------- depth
def test_depth_head_starts_at_the_training_mean_and_clamps() -> None:
    task = DepthTask(max_depth_m=10.0, log_mean=1.5, log_std=0.5)
    head = task.head(8, (4, 4), (16, 16))
    assert isinstance(head, DepthHead)
    for p in head.parameters():
        torch.nn.init.zeros_(p)
    x = torch.zeros(1, 8, 4, 4)
    torch.testing.assert_close(head(x), torch.full((1, 1, 4, 4), 1.5))
    target = torch.full((1, 16, 16), 2.0)
    for bias, metres in ((100.0, 10.0), (-100.0, MIN_DEPTH_M)):
        assert head.dense.out.bias is not None
        torch.nn.init.constant_(head.dense.out.bias, bias)
        values = task.values(task.statistics(head.predict(x, target), target)[0])
        assert values["rmse"] == pytest.approx(abs(metres - 2), abs=1e-5)


def test_log_depth_scale_ignores_invalid_pixels() -> None:
    class Data(FakeDataset):
        def __init__(self, *maps: np.ndarray) -> None:
            super().__init__(len(maps))
            self.maps = maps

        def targets(self, index: int) -> Mapping[str, Any]:
            return {"depth": self.maps[index]}

    a, b = np.array([[1.0, 0.0]]), np.array([[np.e**2, 0.0]])
    mean, std = log_depth_scale(Data(a, b))
    assert mean == pytest.approx(1) and std == pytest.approx(1)
    with pytest.raises(FcbenchError, match="no valid depth pixel"):
        log_depth_scale(Data(np.zeros((1, 2))))


# -------------------------------------------------------------------------------------------- pose
def test_cells_in_boxes() -> None:
    boxes = torch.tensor(
        [
            [4.0, 8.0, 12.0, 16.0],  # widened by 0.8 px: from 3.2 to 12.8 and 7.2 to 16.8
            [5.0, 5.0, 5.0, 5.0],  # empty: its cell
            [-50.0, -50.0, 500.0, 500.0],  # all
            [100.0, 100.0, 120.0, 120.0],  # beyond the image: the last cell
        ]
    )
    inside = cells_in_boxes(boxes, (8, 8), (4.0, 4.0), (32, 32))
    rows, columns = inside[0].any(1).nonzero()[:, 0], inside[0].any(0).nonzero()[:, 0]
    assert rows.tolist() == [1, 2, 3, 4] and columns.tolist() == [0, 1, 2, 3]
    assert inside[0].sum() == 16
    assert inside[1].nonzero().tolist() == [[1, 1]]
    assert inside[2].all()
    assert inside[3].nonzero().tolist() == [[7, 7]]


def test_bilinear_targets_have_the_keypoint_as_their_mean() -> None:
    points = torch.rand(5, 17, 2, generator=torch.Generator().manual_seed(0)) * 20 + 6
    inside = torch.ones(5, 8, 8, dtype=torch.bool)
    cells, weight = bilinear_targets(points, inside, (4.0, 4.0))
    torch.testing.assert_close(weight.sum(-1), torch.ones(5, 17))
    x = ((cells % 8 + 0.5) * 4 * weight).sum(-1)
    y = ((cells // 8 + 0.5) * 4 * weight).sum(-1)
    torch.testing.assert_close(torch.stack([x, y], -1), points, rtol=0, atol=1e-4)


def test_bilinear_targets_outside_the_box() -> None:
    inside = torch.zeros(1, 8, 8, dtype=torch.bool)
    inside[0, 2, 2] = True
    points = torch.tensor([[[11.0, 11.0], [30.0, 30.0], [-90.0, 4.0]]])
    cells, weight = bilinear_targets(points, inside, (4.0, 4.0))
    assert weight.sum(-1).tolist() == [[1.0, 0.0, 0.0]]  # all on its one cell, or none
    assert cells[0, 0, weight[0, 0] > 0].tolist() == [2 * 8 + 2]


def test_peaks_are_refined_and_stay_inside() -> None:
    logits = torch.full((1, 1, 6, 9), -torch.inf)
    logits[0, 0, 2, 4], logits[0, 0, 2, 5] = np.log(0.75), np.log(0.25)
    x, y = peaks(logits, (4.0, 2.0))[0, 0].tolist()
    assert x == pytest.approx((4.75) * 2) and y == pytest.approx(2.5 * 4)
    corner = torch.full((1, 1, 6, 9), -torch.inf)
    corner[0, 0, 5, 8] = 0.0
    assert peaks(corner, (4.0, 2.0))[0, 0].tolist() == [17.0, 22.0]


# ---------------------------------------------------------------------------------------- captions
def test_words() -> None:
    assert words_of("  The dog's RED ball -- (and 2 cats).") == (*("the", "dogs", "red", "ball", "and", "2", "cats"),)
    assert words_of("...") == ()
    assert words_of("Caf\u00e9 na\u00efve") == ("caf\u00e9", "na\u00efve")


def test_vocabulary_round_trip() -> None:
    vocabulary = Vocabulary.count([("b", "a"), ("b",)])
    assert vocabulary.words == ("a", "b") and len(vocabulary) == 5
    assert vocabulary.encode(("b", "zebra")) == [4, UNK]
    assert vocabulary.decode([4, 3, EOS, 4]) == ("b", "a")
    assert vocabulary.decode([4, UNK, 3]) == ("b", "a")
    with pytest.raises(FcbenchError, match="got none in 2 training captions"):
        Vocabulary.count([(), ()])


def test_rare_words_are_left_out_of_large_sets() -> None:
    often = [("common",)] * 999
    assert min_count(999) == 1 and min_count(1_000) == 2 and min_count(50_000) == 5
    assert Vocabulary.count([*often[1:], ("rare",)]).words == ("common", "rare")
    assert Vocabulary.count([*often, ("rare",)]).words == ("common",)


def test_cached_greedy_decoding_follows_the_teacher_forced_logits() -> None:
    torch.manual_seed(0)
    head = CaptionHead(32, WORDS, 7)
    with torch.no_grad():
        head.embed.weight.mul_(50)  # captions that differ between images
        x = torch.randn(5, 32, 3, 4) * 3
        tokens = head(x)
        before = torch.cat([torch.full((5, 1), BOS), tokens[:, :-1]], dim=1)
        logits = head.logits(head.look(x), before)
    logits[..., [BOS, UNK]] = -torch.inf
    ended = (before == EOS).cumsum(1) > 0
    assert torch.equal(logits.argmax(-1)[~ended], tokens[~ended])
    assert (tokens[ended] == EOS).all()
    assert tokens.shape[1] <= 7 and len(set(map(tuple, tokens.tolist()))) > 1


def test_caption_head_is_causal_and_refuses_odd_widths() -> None:
    torch.manual_seed(0)
    head = CaptionHead(32, WORDS, 7)
    seen = head.look(torch.randn(1, 32, 2, 2))
    a, b = torch.tensor([[0, 5, 6, 7]]), torch.tensor([[0, 5, 6, 9]])
    first, second = head.logits(seen, a), head.logits(seen, b)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])
    with pytest.raises(FcbenchError, match="multiple of 32"):
        CaptionHead(40, WORDS, 7)
