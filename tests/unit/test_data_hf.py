"""Data sets of Hugging Face's library, read from folders; of the hub, only what needs no network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

datasets = pytest.importorskip("datasets", reason="needs pip install '.[hf]'")

from fcbench.core import registry  # noqa: E402
from fcbench.core.errors import FcbenchError, UnreadableSample  # noqa: E402
from fcbench.core.samples import DataOptions  # noqa: E402
from fcbench.measure.suite import Suite  # noqa: E402
from fcbench.testing.datasets import LIMIT, DatasetContract, Options  # noqa: E402


def png(seed: int, size_px: tuple[int, int] = (24, 40)) -> dict[str, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_px, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return {"bytes": file.getvalue()}


def rows(n: int, seed: int, **columns: Any) -> Any:
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    features["captions"] = datasets.Sequence(datasets.Value("string"))
    values = {
        "picture": [png(100 * seed + i) for i in range(n)],
        "kind": [i % 3 for i in range(n)],
        "captions": [[f"picture {i}", "a thing"] for i in range(n)],
    }
    for name, (kind, given) in columns.items():
        features[name], values[name] = kind, given
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def saved(path: Path, **splits: Any) -> Path:
    datasets.DatasetDict(splits).save_to_disk(path)
    return path


def parquet(path: Path, **splits: Any) -> Path:
    path.mkdir()
    for name, part in splits.items():
        part.to_parquet(path / f"{name}-00000-of-00001.parquet")
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


def opened(path: Path, split: Any = "train", cache: Path | None = None, **changes: Any) -> Any:
    plugin = registry.get("dataset", f"hf:{path}")
    return plugin.open(split, DataOptions(None, cache or path.parent / "cache", **changes))


OBJECT = {"bbox": [2.0, 3.0, 10.0, 8.0], "category": 1, "area": 60.0, "iscrowd": 0}
KINDS = {
    "bbox": datasets.List(datasets.Value("float32"), length=4),
    "category": datasets.ClassLabel(names=["cat", "dog"]),
    "area": datasets.Value("float32"),
    "iscrowd": datasets.Value("int8"),
}


def with_objects(n: int, seed: int, by_field: bool = False, without: tuple[str, ...] = ()) -> Any:
    """Rows with an empty image first, then one of two objects, and so on."""
    fields = [name for name in KINDS if name not in without]
    found = [[{name: OBJECT[name] for name in fields}] * (2 * (i % 2)) for i in range(n)]
    kinds = {name: KINDS[name] for name in fields}
    if by_field:
        lists = [{name: [each[name] for each in row] for name in fields} for row in found]
        return rows(n, seed, objects=({name: datasets.List(kind) for name, kind in kinds.items()}, lists))
    return rows(n, seed, objects=(datasets.List(kinds), found))


class TestSaved(DatasetContract):
    """What ``save_to_disk`` wrote."""

    write = staticmethod(saved)

    @pytest.fixture(scope="class")
    @classmethod
    def name(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"hf:{cls.write(tmp_path_factory.mktemp('hf') / 'set', train=rows(5, 0), test=rows(4, 1))}"

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, tmp_path_factory: pytest.TempPathFactory) -> Options:
        cache = tmp_path_factory.mktemp("cache")
        return lambda **changes: DataOptions(None, cache, **{"limit": LIMIT, **changes})


class TestParquet(TestSaved):
    """Parquet files, one per split."""

    write = staticmethod(parquet)


class TestObjects(TestSaved):
    """Boxes and categories, as lists by field."""

    @pytest.fixture(scope="class")
    @classmethod
    def name(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        parts = {"train": with_objects(5, 0, by_field=True), "test": with_objects(4, 1, by_field=True)}
        return f"hf:{parquet(tmp_path_factory.mktemp('hf') / 'set', **parts)}"


@pytest.mark.parametrize("by_field", [False, True])
def test_objects_are_read_however_they_are_kept(tmp_path: Path, by_field: bool) -> None:
    part = with_objects(2, 0, by_field)
    data = opened(parquet(tmp_path / "set", train=part, test=with_objects(2, 1, by_field)), image_size_px=(48, 48))
    assert "detection" in data.tasks and data.meta.names("detection") == ("cat", "dog")
    assert data.targets(0)["detection"].boxes.shape == (0, 4)
    found = data.targets(1)["detection"]
    assert found.size_px == (24, 40) and found.labels.tolist() == [1, 1] and found.crowd.tolist() == [False, False]
    assert found.boxes.tolist() == [OBJECT["bbox"]] * 2 and found.areas.tolist() == [60.0, 60.0]


def test_targets_that_nobody_asked_for_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = with_objects(2, 0)
    data = opened(saved(tmp_path / "set", train=part, test=part))
    monkeypatch.setattr("fcbench.data.hf._objects", lambda *_: pytest.fail("objects were read"))
    assert data.targets(1)["classification"] in range(3) and "detection" in list(data.targets(1))


def test_objects_without_an_area_have_their_boxes(tmp_path: Path) -> None:
    part = with_objects(2, 0, without=("area", "iscrowd"))
    data = opened(saved(tmp_path / "set", train=part, test=part))
    assert data.targets(1)["detection"].areas.tolist() == [80.0, 80.0]


@pytest.mark.parametrize("by_field", [False, True])
def test_rows_with_nulls_are_unreadable(tmp_path: Path, by_field: bool) -> None:
    part = with_objects(4, 0, by_field)
    values = part.cast_column("picture", datasets.Image(decode=False)).to_dict()
    values["kind"] = [None, -1, 2, 0]
    values["captions"] = [None, [" ", None], [" a cat\n", ""], ["a"]]
    none = dict.fromkeys(KINDS, [None]) if by_field else [dict.fromkeys(KINDS)]
    values["objects"] = [none, None, *(dict(o, area=[None] * 2) if by_field else o for o in values["objects"][::3])]
    if by_field:
        values["objects"][2] = dict.fromkeys(KINDS, [])
    part = datasets.Dataset.from_dict(values, features=part.features)
    data = opened(saved(tmp_path / "set", train=part, test=part))
    for row in (0, 1):
        for task, column in zip(("classification", "captioning", "detection"), ("kind", "captions", "objects")):
            with pytest.raises(UnreadableSample, match=f"row {row} of hf:.* no value for {task} in column '{column}'"):
                data.targets(row)[task]
    assert data.targets(2)["classification"] == 2 and data.targets(2)["captioning"] == ("a cat",)
    assert len(data.targets(2)["detection"].boxes) == 0
    assert data.targets(3)["detection"].areas.tolist() == [80.0 if by_field else 60.0] * 2


def test_a_turned_image_does_not_fit_its_boxes(tmp_path: Path) -> None:
    part, file, exif = with_objects(2, 0), io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 24)).save(file, "png", exif=exif)
    values = part.cast_column("picture", datasets.Image(decode=False)).to_dict()
    values["picture"][1] = {"bytes": file.getvalue()}
    turned = datasets.Dataset.from_dict(values, features=part.features)
    data = opened(saved(tmp_path / "set", train=turned, test=part))
    with pytest.raises(UnreadableSample, match="EXIF orientation 6"):
        data[1]


def test_targets_and_names_are_the_columns(tmp_path: Path) -> None:
    data = opened(saved(tmp_path / "set", train=rows(5, 0), validation=rows(2, 1)))
    assert data.meta.label_names == ("a", "b", "c") and data.tasks == ("classification", "captioning")
    assert data.targets(4) == {"classification": 1, "captioning": ("picture 4", "a thing")}
    assert data[4].size_px == (24, 40) and data.sizes() == dict.fromkeys("01234", (24, 40))


def test_without_a_test_split_a_fifth_is_held_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "set", train=rows(10, 0))
    train, test = opened(path), opened(path, "test")
    ids = [{d[i].id for i in range(len(d))} for d in (train, test)]
    assert (len(train), len(test)) == (8, 2) and not ids[0] & ids[1]


def test_a_single_split_that_was_saved_is_split(tmp_path: Path) -> None:
    rows(10, 0).save_to_disk(tmp_path / "set")
    train, test = opened(tmp_path / "set"), opened(tmp_path / "set", "test")
    assert (len(train), len(test)) == (8, 2) and "-hash-split-" in train.revision


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="holds too few rows for a test split"):
        opened(saved(tmp_path / "set", train=rows(1, 0)), "test")


def test_the_revision_is_of_the_contents(tmp_path: Path) -> None:
    one, other = (saved(tmp_path / f"{s}", train=rows(4, s), test=rows(2, 9)) for s in (0, 1))
    same = saved(tmp_path / "again" / "0", train=rows(4, 0), test=rows(2, 9))
    revision = opened(one).revision
    assert opened(other).revision != revision != opened(one, "test").revision
    assert opened(one).revision == revision and opened(same).revision.partition("-")[2] == revision.partition("-")[2]


def test_a_broken_image_is_one_unreadable_sample(tmp_path: Path) -> None:
    part = rows(2, 0)
    values = part.cast_column("picture", datasets.Image(decode=False)).to_dict()
    values["picture"][1] = {"bytes": b"no picture"}
    spoilt = datasets.Dataset.from_dict(values, features=part.features)
    data = opened(saved(tmp_path / "set", train=spoilt, test=rows(2, 1)))
    assert data[0].image.shape == (3, 24, 40)
    with pytest.raises(UnreadableSample, match="row 1 of hf:"):
        data[1]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (lambda: rows(3, 0).remove_columns("picture"), "has 0 columns of images"),
        (lambda: rows(3, 0).remove_columns(["kind", "captions"]), "no task fits"),
        (lambda: rows(3, 0, text=(datasets.Value("string"), ["x"] * 3)), "several columns for captioning"),
        (lambda: with_objects(3, 0, without=("category",)).select_columns(["picture", "objects"]), "no objects with"),
        (lambda: with_objects(3, 0, without=("bbox",)).select_columns(["picture", "objects"]), "no objects with"),
    ],
)
def test_columns_that_say_no_task_are_refused(tmp_path: Path, part: Any, said: str) -> None:
    with pytest.raises(FcbenchError, match=said):
        opened(saved(tmp_path / "set", train=part(), test=part()))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("hf", "needs a source"),
        ("hf:no/such", "add its commit"),
        ("hf:no/such@main", "add its commit"),
        (f"hf:no/such@{'0' * 40}", "cannot be read"),
        ("scenes:small", "has no variant"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, typed: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # else the library tries for half a minute
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FcbenchError, match=said):
        registry.get("dataset", typed).open("train", DataOptions(None, tmp_path))


def test_a_suite_takes_it_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "set", train=rows(4, 0), test=rows(2, 1))
    suite = Suite("x", dataset=f"hf:{path}", tasks=("classification",)).with_files()
    suite.check()
    with pytest.raises(FcbenchError, match="carries no depth"):
        Suite("x", dataset=f"hf:{path}", tasks=("depth",)).check()
