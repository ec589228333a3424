"""What `benchmarks.anchors` tries out on the HEVC anchors."""

import numpy as np
import pytest

from benchmarks.anchors import CHANGES, LAYOUTS, Way, block, by_similarity, code, unblock
from fcbench.codecs.shared.mosaic import MosaicCodec
from fcbench.core import registry
from fcbench.core.features import FeatureSpec
from fcbench.features.statistics import statistics
from fcbench.testing.maps import correlated


@pytest.mark.parametrize("shape", [(5, 8, 8), (4, 22, 30), (7, 3, 5)])
def test_blocks_hold_every_map(shape: tuple[int, int, int]) -> None:
    maps = np.arange(np.prod(shape)).reshape(shape)
    pictures = block(maps)

    assert all(min(p.shape) >= 16 and p.shape[0] % 8 == p.shape[1] % 8 == 0 for p in pictures)
    assert (unblock(pictures, shape) == maps).all()


def test_similar_channels_are_neighbours() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 500))
    channels = [a, b, a + 0.1 * b, b - 0.1 * a]

    order = by_similarity(np.corrcoef(channels))

    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}


@pytest.mark.parametrize("way", (Way("as it is"), *CHANGES), ids=lambda way: way.name)
def test_every_way_decodes_to_what_it_coded(way: Way) -> None:
    samples = correlated(3, 8, (16, 16), 1).numpy()
    samples /= samples.std()
    order = np.random.default_rng(0).permutation(8) if way.similar else np.arange(8)

    limit = 6.0 / min(way.spread, 1.0)  # nothing is clipped

    coarse, fine = (code(samples, limit, list(order), qp, way) for qp in (40, 12))

    assert fine[0] > coarse[0] and fine[1] < 0.01 < coarse[1]


def test_pictures_of_a_pyramid_share_a_range() -> None:
    specs = FeatureSpec("fine", 4, 8), FeatureSpec("coarse", 6, 16)
    maps = {"fine": correlated(4, 4, (16, 16), 1), "coarse": 5 * correlated(4, 6, (8, 8), 2)}
    stats = statistics(maps.items())
    codec = registry.get("codec", "hevc_klt").build(specs, stats, {"qp": 20, "bits": 10})
    assert isinstance(codec, MosaicCodec)
    codec.prepare(list(maps.values()))

    steps = {name: [float(levels(codec, [i]).step) for i in range(2)] for name, _, levels in LAYOUTS}

    shared, own = steps["one per map"], steps["one per map, a range each"]
    assert own[0] != own[1] and shared == [max(own)] * 2
    assert [name for name, more, _ in LAYOUTS if more] == ["one"]

    state = codec.state_dict()
    del state["span"]
    codec.load_state_dict(state)
    assert [float(codec.levels([i]).step) for i in range(2)] == own, "as in the version that wrote no span"
