"""The feature store: extracted once, whole or not at all, honest about what it could not read or write."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcbench.core import cache
from fcbench.core.cache import Cache, digest
from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.features import Features, FeatureSpec, WeightsInfo
from fcbench.core.samples import Dataset, DatasetMeta, Sample
from fcbench.features import extract as extract_module
from fcbench.features import feature_set, statistics
from fcbench.features import store as store_module
from fcbench.features.extract import describe, extract
from fcbench.features.feature_set import FeatureSet
from fcbench.features.source import Readable
from fcbench.features.statistics import stats_of
from fcbench.features.store import Writer, key_of
from fcbench.measure.evaluate import evaluate
from fcbench.training.codec import CodecRecipe
from fcbench.training.options import Budget
from fcbench.training.readout import ReadoutRecipe, own_samples
from fcbench.transmit.senders import Uncoded


@dataclass
class Data(Dataset):
    """Random images; some unreadable, some of another size, some that kill their reader."""

    n: int = 7
    revision: str = "r1"
    bad: tuple[int, ...] = ()
    odd: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    fatal: tuple[int, ...] = ()
    size: tuple[int, int] = (10, 13)
    name: str = "data"
    split: str = "train"
    tasks: tuple[str, ...] = ()
    meta: DatasetMeta = DatasetMeta()
    image_size_px: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise UnreadableSample(f"cannot read image img{index}.jpg: truncated")
        if index in self.fatal:
            raise FcbenchError("the disk is gone: plug it in")
        if index in self.deadly and torch.utils.data.get_worker_info() is not None:
            os._exit(3)
        size = (11, 13) if index in self.odd else self.size
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, *size), generator=generator).to(torch.uint8)
        return Sample(f"id{index}", image, (size[0] * 2, size[1] * 2))

    def targets(self, index: int) -> Mapping[str, Any]:
        return {}


@dataclass
class Enc:
    """Two maps: the image at stride 1, averages at stride 4. Counts the images that it saw."""

    name: str = "enc"
    sha256: str = "a" * 64
    n_seen: int = 0
    spoil: bool = False
    default_split_point: str = "coarse"
    module: nn.Module = field(default_factory=nn.Identity)
    specs: Mapping[str, FeatureSpec] = field(
        default_factory=lambda: {"fine": FeatureSpec("fine", 3, 1), "coarse": FeatureSpec("coarse", 3, 4)}
    )

    @property
    def weights(self) -> WeightsInfo:
        return WeightsInfo(self.sha256, "random(seed=0)")

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        self.n_seen += len(images)
        x = images.float()
        if self.spoil:
            x[0, 0, 0, 0] = float("nan")
        coarse = nn.functional.avg_pool2d(x, 4, ceil_mode=True)
        return Features({k: v for k, v in (("fine", x), ("coarse", coarse)) if k in splits})


BOTH = ("fine", "coarse")


def run(cache: Path, data: Data | None = None, enc: Enc | None = None, **kw: Any) -> FeatureSet:
    given = {"batch_size": 3, "n_workers": 0, **kw}
    splits = given.pop("splits", BOTH)
    encoder: Any = enc or Enc()
    return extract(Data() if data is None else data, encoder, splits, Cache(cache), **given)


def folder_of(cache: Path, features: FeatureSet) -> Path:
    """Of the set's first shard."""
    return cache / "features" / features.key / "00000000"


def folders(cache: Path) -> list[Path]:
    """Of all shards of all sets."""
    return sorted(p for p in (cache / "features").glob("*/*") if p.is_dir())


# -------------------------------------------------------------------------------------- what is kept
@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_store_holds_the_encoders_maps(tmp_path: Path, n_workers: int) -> None:
    data = Data()
    store = run(tmp_path, data, n_workers=n_workers)
    assert len(store) == 7
    assert store.ids == tuple(f"id{i}" for i in range(7))
    assert store.indices == tuple(range(7))
    assert {s.size_px for s in store.samples} == {(20, 26)}
    assert store.n_px == 7 * 20 * 26
    assert store.image_px == (10, 13)
    assert store.grids == {"fine": (10, 13), "coarse": (3, 4)}
    assert store.n_scalars == 7 * 3 * (10 * 13 + 3 * 4)
    assert list(store.specs) == ["fine", "coarse"]
    for i in range(7):
        expected = Enc()(data[i].image[None], BOTH).maps
        found = store.maps(i)
        assert found.n_scalars * 7 == store.n_scalars
        assert all(torch.equal(found.maps[k], expected[k]) for k in BOTH)


def test_a_batch_is_in_the_order_asked_for_and_a_copy(tmp_path: Path) -> None:
    store = run(tmp_path)
    batch = store.batch([4, 0, 4])
    assert torch.equal(batch["fine"][1:2], store.maps(0).maps["fine"])
    assert torch.equal(batch["fine"][0], batch["fine"][2])
    batch["fine"].zero_()
    assert store.maps(0).maps["fine"].any()
    with pytest.raises(IndexError):
        store.batch([7])
    with pytest.raises(IndexError):
        store.batch([-1])


def test_large_stores_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = run(tmp_path)
    expected = small.batch(range(7))
    monkeypatch.setattr(feature_set, "RAM_LIMIT_BYTES", 10)
    large = run(tmp_path)
    batch = large.batch(range(7))
    assert all(torch.equal(batch[k], expected[k]) for k in BOTH)
    batch["fine"].zero_()
    assert torch.equal(run(tmp_path).batch(range(7))["fine"], expected["fine"])


def test_the_second_time_the_encoder_is_not_touched(tmp_path: Path) -> None:
    enc = Enc()
    run(tmp_path, enc=enc)
    assert enc.n_seen == 7
    again = run(tmp_path, enc=enc)
    assert enc.n_seen == 7 and len(again) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"data": Data(revision="r2")},
        {"data": Data(split="test")},
        {"data": Data(name="other")},
        {"data": Data(n=6)},
        {"data": Data(size=(12, 13), image_size_px=(12, 13))},
        {"enc": Enc(name="enc2")},
        {"enc": Enc(sha256="b" * 64)},
        {"splits": ("coarse",)},
    ],
    ids=["revision", "split", "dataset", "limit", "size", "encoder", "weights", "splits"],
)
def test_whatever_determines_features_is_in_the_key(tmp_path: Path, change: dict[str, Any]) -> None:
    run(tmp_path)
    enc = change.pop("enc", Enc())
    run(tmp_path, enc=enc, **change)
    assert enc.n_seen > 0
    assert len(folders(tmp_path)) == 2


def test_the_files_are_plain_numpy_and_json(tmp_path: Path) -> None:
    store = run(tmp_path)
    array = np.load(folder_of(tmp_path, store) / "coarse.npy")
    assert array.dtype == np.float32 and array.shape == (7, 3, 3, 4)
    index = json.loads((folder_of(tmp_path, store) / "index.json").read_text())
    assert index["key"]["weights_sha256"] == "a" * 64
    assert [s["id"] for s in index["samples"]] == list(store.ids)
    files = {"fine.npy", "coarse.npy", "index.json"}
    assert {p.name for p in folder_of(tmp_path, store).iterdir()} == files | {f"{f}.xxh3" for f in files}


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    run(tmp_path, advance=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 7), (6, 7), (7, 7)]


# --------------------------------------------------------------------------------------- statistics
def test_statistics_are_those_of_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK_BYTES", 3 * 130 * 8 * 2)  # several chunks, the last one short
    store = run(tmp_path)
    x = np.load(folder_of(tmp_path, store) / "fine.npy").astype(np.float64)
    found = stats_of(store)["fine"]
    np.testing.assert_allclose(found.mean, x.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found.std, x.std((0, 2, 3)), rtol=1e-6)
    assert found.low.tolist() == x.min((0, 2, 3)).tolist()
    assert found.high.tolist() == x.max((0, 2, 3)).tolist()
    assert found.mean.dtype == torch.float32


def test_statistics_survive_a_large_mean_and_channels_that_do_not_vary() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 5, 5, generator=generator)
    x[:, 0] += 3e4
    x[:, 1] = 0.1
    found = statistics.statistics(("x", chunk) for chunk in x.split(7))["x"]
    expected = x.double().transpose(0, 1).flatten(1).std(1, correction=0)
    assert found.std[0] == pytest.approx(float(expected[0]), rel=1e-6)
    assert found.std[1] == 1.0


def test_statistics_encode_features_that_are_not_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK_BYTES", 3 * 12 * 8 * 5)  # chunks of 1 sample and of 5
    data, encoder, stored = Data(16), Enc(), run(tmp_path / "stored", Data(16))
    live = extract(data, encoder, BOTH, Cache(tmp_path, keeps_features=False), n_workers=0)  # type: ignore[arg-type]
    encoder.n_seen = 0
    kept, taken = stats_of(stored), stats_of(live)
    assert encoder.n_seen == 16
    assert all(torch.equal(getattr(kept[n], k), getattr(taken[n], k)) for n in BOTH for k in ("mean", "std", "high"))


def test_statistics_are_kept_and_damage_to_them_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "stats.safetensors"
    first = stats_of(run(tmp_path), path)["fine"]
    kept = stats_of(run(tmp_path), path)["fine"]
    assert torch.equal(kept.std, first.std)
    path.write_bytes(b"damaged")
    again = stats_of(run(tmp_path), path)["fine"]
    assert torch.equal(again.std, first.std)
    assert len(path.read_bytes()) > 100


def test_statistics_are_kept_nowhere_unless_asked(tmp_path: Path) -> None:
    stats_of(run(tmp_path))
    assert not list(tmp_path.rglob("stats.safetensors"))


# --------------------------------------------------------------------------------------- bad images
@pytest.mark.parametrize("n_workers", [0, 2])
def test_stop_names_the_file_and_leaves_nothing(tmp_path: Path, n_workers: int) -> None:
    with pytest.raises(UnreadableSample, match="img4.jpg") as caught:
        run(tmp_path, Data(bad=(4,)), n_workers=n_workers)
    assert "\n" not in str(caught.value)
    assert folders(tmp_path) == []


@pytest.mark.parametrize("bad", [(4,), (0, 1, 2), (6,), (0, 6)], ids=str)
def test_skip_lists_them_and_goes_on(tmp_path: Path, bad: tuple[int, ...]) -> None:
    data = Data(bad=bad)
    store = run(tmp_path, data, on_bad_image="skip")
    good = [i for i in range(7) if i not in bad]
    assert store.indices == tuple(good) and len(store) == len(good)
    assert [s.index for s in store.skipped] == list(bad)
    assert all(f"img{s.index}.jpg" in s.reason for s in store.skipped)
    assert store.n_px == len(good) * 20 * 26
    last = data[good[-1]].image[None].float()
    assert torch.equal(store.maps(len(good) - 1).maps["fine"], last)
    assert np.load(folder_of(tmp_path, store) / "fine.npy").shape[0] == len(good)
    enc = Enc()
    assert run(tmp_path, data, enc, on_bad_image="skip").skipped == store.skipped
    assert enc.n_seen == 0


def test_a_store_with_gaps_does_not_serve_stop(tmp_path: Path) -> None:
    run(tmp_path, Data(bad=(4,)), on_bad_image="skip")
    with pytest.raises(UnreadableSample, match="img4.jpg"):
        run(tmp_path, Data(bad=(4,)))
    repaired = run(tmp_path, Data())
    assert len(repaired) == 7 and not repaired.skipped


def test_skip_leaves_out_the_same_samples_whatever_the_cache_holds(tmp_path: Path) -> None:
    class Targets(dict[str, Any]):
        def __missing__(self, task: str) -> Any:
            raise UnreadableSample(f"cannot read {task}")

    class Damaged(Data):
        def targets(self, index: int) -> Mapping[str, Any]:
            return Targets({"depth": 1} if index == 2 else {"depth": 1, "segmentation": 2})

    data, orders = Damaged(tasks=("depth", "segmentation")), (["depth"], ["segmentation"], ["segmentation", "depth"])
    expected = [(), (2,), (2,)]
    for i, order in enumerate((orders, orders[::-1])):
        found = [run(tmp_path / str(i), data, on_bad_image="skip", tasks=tasks) for tasks in order]
        assert [tuple(s.index for s in f.skipped) for f in found] == expected[:: -1 if i else 1]
    assert len(run(tmp_path, data, tasks=["depth"])) == 7


def test_what_is_trained_on_a_set_is_named_by_its_gaps(tmp_path: Path) -> None:
    """Also by those of the samples that another encoder, a frozen decoder's, then reads."""
    sets = [run(tmp_path / str(bad), Data(bad=bad), on_bad_image="skip") for bad in ((), (0,), (6,))]
    assert len({f.key for f in sets}) == 1 and sets[0].contents == {"features": sets[0].key}
    keys = set()
    for features in sets:
        readable = Readable(Data(), features.indices)
        source: Any = SimpleNamespace(train=SimpleNamespace(features=features, dataset=readable))
        task: Any = SimpleNamespace(name="depth")
        readout = ReadoutRecipe(source, task, "linear", Budget(), 0)
        codec = CodecRecipe(source, OperatingPoint("raw", {}), Budget(), 0)
        encoder: Any = Enc()
        own = key_of(describe(own_samples(readout), encoder, BOTH))
        keys |= {readout.key, replace(readout, tail=object()).key, digest(codec.contents), own}
    assert len(keys) == 3 * 4
    assert Readable(Data(), range(3)).revision == "r1"


def test_nothing_readable(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="no readable sample.*img0.jpg"):
        run(tmp_path, Data(bad=tuple(range(7))), on_bad_image="skip")
    with pytest.raises(FcbenchError, match="no readable sample"):
        run(tmp_path, Data(n=0))


def test_images_of_several_sizes(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="id5 is 11x13, the first is 10x13: give --image-size"):
        run(tmp_path, Data(odd=(5,)))
    assert folders(tmp_path) == []


@pytest.mark.parametrize("n_workers", [0, 2])
def test_other_failures_of_the_data_are_not_skipped(tmp_path: Path, n_workers: int) -> None:
    with pytest.raises(FcbenchError, match="^the disk is gone: plug it in$"):
        run(tmp_path, Data(fatal=(5,)), on_bad_image="skip", n_workers=n_workers)


def test_a_reader_that_dies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="a process that reads data died"):
        run(tmp_path, Data(deadly=(5,)), n_workers=1)
    assert len(run(tmp_path, Data(deadly=(5,)), n_workers=0)) == 7


def test_features_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="enc gives values at fine.*sample id0"):
        run(tmp_path, enc=Enc(spoil=True))


def test_an_unknown_split_point_is_never_served_from_the_cache(tmp_path: Path) -> None:
    run(tmp_path, splits=("coarse",))
    with pytest.raises(FcbenchError, match="Did you mean 'coarse'"):
        run(tmp_path, splits=("coarse", "coarser"))


# --------------------------------------------------------------------------------- bad disks, bad luck
def test_half_a_folder_is_never_read(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 6:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, advance=kill)
    assert folders(tmp_path) == []
    assert len(run(tmp_path)) == 7


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    store = run(tmp_path)
    part = folder_of(tmp_path, store).with_name(folder_of(tmp_path, store).name + ".part")
    folder_of(tmp_path, store).rename(part)
    enc = Enc()
    assert len(run(tmp_path, enc=enc)) == 7
    assert enc.n_seen == 7 and not part.exists()


def _cut_array(folder: Path) -> None:
    path = folder / "fine.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _flip_a_bit(folder: Path) -> None:
    path = folder / "fine.npy"
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x40  # in an exponent
    path.write_bytes(data)


def _of_other_contents(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["key"]["weights_sha256"] = "b" * 64
    cache.put(folder / "index.json", json.dumps(index).encode())


def _cut_index(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text()[:-20])


def _other_schema(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    cache.put(folder / "index.json", json.dumps(index | {"schema": 99}).encode())


def _no_map(folder: Path) -> None:
    (folder / "coarse.npy").unlink()


@pytest.mark.parametrize("damage", [_cut_array, _flip_a_bit, _cut_index, _of_other_contents, _other_schema, _no_map])
def test_a_damaged_folder_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(folder_of(tmp_path, run(tmp_path)))
    enc = Enc()
    store = run(tmp_path, enc=enc)
    assert enc.n_seen == 7
    assert torch.equal(store.maps(6).maps["fine"], Data()[6].image[None].float())


def test_a_file_where_the_cache_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("I am a file")
    with pytest.raises(FcbenchError, match="cannot use .*cache.*--cache-dir"):
        run(tmp_path / "cache")


@pytest.mark.parametrize(("number", "hint"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "Permission denied")])
def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str) -> None:
    def fail(self: Writer, maps: Mapping[str, Tensor]) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Writer, "append", fail)
    with pytest.raises(FcbenchError, match=f"cannot use {tmp_path}.*{hint}.*--cache-dir"):
        run(tmp_path)
    assert folders(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kw: Any) -> Any:
        target = Path("/dev/full") if self.name == "fine.npy" and "w" in mode else self
        return opened(target, mode, *args, **kw)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FcbenchError, match=f"cannot use {tmp_path}.*No space left.*free some space"):
        run(tmp_path, Data(size=(200, 200)))
    assert folders(tmp_path) == []


def test_two_at_once_extract_once(tmp_path: Path) -> None:
    encs = [Enc(), Enc()]
    stores: list[FeatureSet] = []
    start = threading.Barrier(2)

    def work(enc: Enc) -> None:
        start.wait()
        stores.append(run(tmp_path, Data(n=60), enc))

    threads = [threading.Thread(target=work, args=(e,)) for e in encs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(e.n_seen for e in encs) == [0, 60]
    assert [len(s) for s in stores] == [60, 60]


# -------------------------------------------------------------------------------------------- shards
@pytest.fixture
def shards_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_set, "SHARD_SAMPLES", 3)


def test_a_killed_extraction_goes_on_at_its_shard(tmp_path: Path, shards_of_three: None) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done > 6:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, advance=kill)
    enc, calls = Enc(), list[tuple[int, int]]()
    store = run(tmp_path, enc=enc, advance=lambda done, total: calls.append((done, total)))
    assert enc.n_seen == 1 and calls == [(3, 7), (6, 7), (7, 7)]
    assert store.ids == tuple(f"id{i}" for i in range(7))
    assert not list((tmp_path / "features").rglob("*.part"))


@pytest.mark.parametrize("limit", [10, 1 << 30])
def test_samples_are_found_in_their_shards(
    tmp_path: Path, shards_of_three: None, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(feature_set, "RAM_LIMIT_BYTES", limit)
    data = Data(n=11, bad=(0, 3, 4, 5, 7))  # the second shard is empty
    store = run(tmp_path, data, on_bad_image="skip")
    assert store.indices == (1, 2, 6, 8, 9, 10) and len(folders(tmp_path)) == 4
    expected = torch.stack([data[i].image.float() for i in store.indices])
    assert torch.equal(store.batch(range(6))["fine"], expected)
    assert torch.equal(store.batch([5, 0, 2, 0])["fine"], expected[[5, 0, 2, 0]])
    x = expected.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(stats_of(store)["fine"].mean, x.mean(1).float())


def test_a_damaged_shard_alone_is_made_again(tmp_path: Path, shards_of_three: None) -> None:
    run(tmp_path)
    _flip_a_bit(folders(tmp_path)[1])
    enc = Enc()
    run(tmp_path, enc=enc)
    assert enc.n_seen == 3


def test_images_of_several_sizes_in_several_shards(tmp_path: Path, shards_of_three: None) -> None:
    with pytest.raises(FcbenchError, match="id5 is 11x13, the first is 10x13: give --image-size"):
        run(tmp_path, Data(odd=(5,)))


def test_two_at_once_share_the_shards(tmp_path: Path, shards_of_three: None) -> None:
    start, encs, stores = threading.Barrier(2), [Enc(), Enc()], list[FeatureSet]()

    def work(enc: Enc) -> None:
        waited: list[int] = []

        def meet(done: int, total: int) -> None:
            if not waited:  # both are inside a shard of their own
                waited.append(start.wait(20))

        stores.append(run(tmp_path, Data(n=30), enc, advance=meet))

    threads = [threading.Thread(target=work, args=(e,)) for e in encs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sum(e.n_seen for e in encs) == 30 and all(e.n_seen for e in encs)
    assert torch.equal(stores[0].batch(range(30))["fine"], stores[1].batch(range(30))["fine"])


def test_float16_is_another_set_of_half_the_size(tmp_path: Path) -> None:
    whole, half = run(tmp_path), run(tmp_path, dtype="float16")
    assert half.key != whole.key and half.n_bytes * 2 == whole.n_bytes
    coarse, expected = half.batch(range(7))["coarse"], whole.batch(range(7))["coarse"]
    assert coarse.dtype == torch.float32 and torch.equal(coarse, expected.half().float())
    assert np.load(folder_of(tmp_path, half) / "fine.npy").dtype == np.float16


def test_what_float16_cannot_hold_is_an_error(tmp_path: Path) -> None:
    class Loud(Enc):
        def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
            maps = dict(super().__call__(images, splits).maps)
            maps["fine"][1, 0, 0, 0] = -65600.0
            return Features(maps)

    with pytest.raises(FcbenchError, match="at fine beyond 65504, .* sample id1: give --features-dtype float32"):
        run(tmp_path, enc=Loud(), dtype="float16")
    assert len(run(tmp_path, Data(n=3), enc=Loud())) == 3


def test_the_schema_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path).key
    monkeypatch.setattr(extract_module, "SCHEMA", 99)
    monkeypatch.setattr(store_module, "SCHEMA", 99)
    assert run(tmp_path).key != first


# ------------------------------------------------------------------------------------------- not stored
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_that_are_not_stored_are_those_that_would_be(tmp_path: Path, dtype: Any) -> None:
    data = Data(70, bad=(2,), tasks=())
    stored = run(tmp_path / "stored", data, dtype=dtype, on_bad_image="skip")
    encoder: Any = Enc()
    home = Cache(tmp_path / "live", keeps_features=False)
    live = extract(data, encoder, BOTH, home, dtype=dtype, on_bad_image="skip")
    assert (live.key, live.samples, live.skipped, live.grids) == (
        stored.key,
        stored.samples,
        stored.skipped,
        stored.grids,
    )
    for indices in ([3], [0, 68, 2, 2], range(30)):
        for name, m in live.batch(indices).items():
            assert m.dtype == torch.float32 and torch.equal(m, stored.batch(indices)[name])
    kept, taken = stats_of(stored), stats_of(live)
    assert all(torch.equal(getattr(kept[n], k), getattr(taken[n], k)) for n in BOTH for k in ("mean", "std", "high"))
    assert not list(home.root.rglob("*.npy")) and list(home.root.rglob("index.json"))
    n_seen = encoder.n_seen
    again = extract(data, encoder, BOTH, home, dtype=dtype, on_bad_image="skip")
    assert encoder.n_seen == n_seen and again.ids == stored.ids  # images are not read again
    assert extract(data, encoder, BOTH, Cache(home.root), dtype=dtype, on_bad_image="skip").ids == stored.ids
    assert list(home.root.rglob("*.npy"))  # and a run that stores them does


def test_stored_features_are_read_where_none_are_to_be_stored(tmp_path: Path) -> None:
    encoder: Any = Enc()
    run(tmp_path, enc=encoder)
    n_seen = encoder.n_seen
    extract(Data(), encoder, BOTH, Cache(tmp_path, keeps_features=False)).batch([0, 1])
    assert encoder.n_seen == n_seen


def test_an_image_that_spoils_later_is_named(tmp_path: Path) -> None:
    data, encoder = Data(), Enc()
    found = extract(data, encoder, BOTH, Cache(tmp_path, keeps_features=False))  # type: ignore[arg-type]
    data.bad = (4,)
    with pytest.raises(UnreadableSample, match="img4.jpg"):
        found.batch([3, 4])
    encoder.spoil = True
    with pytest.raises(FcbenchError, match="not finite, first for sample id3"):
        found.batch([3])


def test_features_that_arrive_unchanged_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = run(tmp_path)
    source: Any = SimpleNamespace(test=SimpleNamespace(features=features), stats=stats_of(features))
    read, batch = list[int](), FeatureSet.batch

    def recorded(self: FeatureSet, indices: Sequence[int]) -> dict[str, Tensor]:
        read.extend(indices)
        return batch(self, indices)

    monkeypatch.setattr(FeatureSet, "batch", recorded)
    assert not evaluate(Uncoded(features).receive(), source, {}).feature_errors.any()
    assert read == list(range(len(features)))
