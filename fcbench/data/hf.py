"""Hugging Face ``datasets``: hf:FOLDER (saved, Parquet, image folders; offline) or hf:NAME@COMMIT of the hub.

Columns are recognized by type and name: the one `Image` is the image; a `ClassLabel` gives classification; texts or
lists of texts named caption, captions, text or sentences give captioning; objects with a bbox (x, y, width, height in
pixels, as in COCO) and a category that is a `ClassLabel` give detection. Objects without an area get that of their box;
iscrowd or is_crowd is read. Splits are train, and test or validation; without either, a fifth of the rows is the test
split. Rows are read from memory-mapped files, never streamed. The revision is a hash of a folder's files, or the
commit: a data set of the hub without one is refused.

Needs ``pip install ".[hf]"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin, Objects, Sample
from fcbench.data.shared.contents import READING, Contents
from fcbench.data.shared.folders import hash_split
from fcbench.data.shared.images import LazyTargets, as_sample, image_size, read_aligned_image, read_image
from fcbench.data.shared.layout import files_below

CAPTIONS = ("caption", "captions", "text", "sentences")
CATEGORIES, CROWD = ("category", "categories"), ("iscrowd", "is_crowd")
TESTS = ("test", "validation", "val")
_COMMIT = re.compile(r"(.+)@([0-9a-f]{40})")


@dataclass
class Rows(Dataset):
    """One split."""

    name: str
    split: str
    revision: str
    tasks: tuple[str, ...]
    meta: DatasetMeta
    rows: Any  # the split as `datasets.Dataset`, images not decoded
    indices: list[int]  # rows that are samples, in order
    columns: Mapping[str, str]  # ``image``, and each task, to its column
    image_size_px: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.indices)

    def _stored(self, index: int) -> tuple[Path, bytes]:
        row = self.indices[index]
        stored = self.rows.select_columns([self.columns["image"]])[row][self.columns["image"]]
        return Path(f"row {row} of {self.name}"), stored["bytes"] or Path(stored["path"]).read_bytes()

    def __getitem__(self, index: int) -> Sample:
        read = read_aligned_image if "detection" in self.tasks else read_image
        return as_sample(str(self.indices[index]), read(*self._stored(index)), self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        def one(task: str) -> Any:
            column, row = self.columns[task], self.indices[index]
            value = self.rows.select_columns([column])[row][column]
            found: Any = _captions(value) or None if task == "captioning" else value
            if task == "detection":
                found = _objects(value, image_size(*self._stored(index)))
            if found is None or (task == "classification" and found < 0):  # the library's mark of an unknown class
                raise UnreadableSample(f"row {row} of {self.name} has no value for {task} in column {column!r}")
            return found

        return LazyTargets(self.tasks, one)

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        return {str(row): image_size(*self._stored(i)) for i, row in enumerate(self.indices)}


@dataclass(frozen=True)
class HuggingFace(DatasetPlugin):
    """A data set by folder or by name and commit."""

    typed: str = ""  # what follows ``hf:``
    tasks: tuple[str, ...] = ("classification", "captioning", "detection")
    needs_root: bool = False

    def variant(self, typed: str) -> HuggingFace:
        return HuggingFace(typed)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        splits, revision = self._load(options)
        if "train" not in splits:
            raise self._error(f"has no split train, only {', '.join(splits)}")
        test = next((name for name in TESTS if name in splits), "")
        rows = splits[test if split == "test" and test else "train"]
        numbers = range(len(rows))
        if test:
            revision, indices = f"{revision}-{split}", list(numbers)
        else:
            revision = f"{revision}-hash-split-{split}"
            indices = [int(i) for i in hash_split(map(str, numbers), split)]
        if not indices:
            raise self._error(f"holds too few rows for a {split} split")
        columns = self._columns(rows.features)
        meta = DatasetMeta()
        if label := columns.get("classification"):
            meta = replace(meta, label_names=tuple(rows.features[label].names))
        if objects := columns.get("detection"):
            names = tuple(_categories(rows.features[objects]).names)
            meta = replace(meta, category_names={"detection": names})
        rows = rows.cast_column(columns["image"], _datasets().Image(decode=False))
        tasks = tuple(task for task in self.tasks if task in columns)
        size_px = options.image_size_px
        return Rows("hf:" + self.typed, split, revision, tasks, meta, rows, indices[: options.limit], columns, size_px)

    def _load(self, options: DataOptions) -> tuple[Mapping[str, Any], str]:
        if not self.typed:
            raise FcbenchError("data set 'hf' needs a source: give --dataset hf:FOLDER, or hf:NAME@COMMIT")
        datasets, path = _datasets(), Path(self.typed)
        commit = _COMMIT.fullmatch(self.typed)
        if not path.is_dir() and commit is None:
            raise self._error("is not a folder here; to read it from the hub, add its commit: hf:NAME@COMMIT")
        try:
            if commit is not None and not path.is_dir():
                return datasets.load_dataset(commit[1], revision=commit[2]), f"{READING}-{commit[2][:16]}"
            saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
            home = str(options.cache_dir / "huggingface")
            loaded = datasets.load_from_disk(path) if saved else datasets.load_dataset(str(path), cache_dir=home)
            splits = {"train": loaded} if isinstance(loaded, datasets.Dataset) else loaded
        except Exception as error:  # the library and its file systems may raise anything
            raise self._error(f"cannot be read ({' '.join(str(error).split())[:200]})") from error
        files = [p for p in files_below(path) if p.name[0] != "."]
        return splits, Contents(path, options.cache_dir).revision(files)

    def _columns(self, features: Mapping[str, Any]) -> dict[str, str]:
        datasets = _datasets()
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        if len(images) != 1:
            raise self._error(f"has {len(images)} columns of images ({', '.join(features)}); expected one")
        known = {
            "classification": [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)],
            "captioning": [name for name in features if name in CAPTIONS],
            "detection": [n for n, kind in features.items() if isinstance(_categories(kind), datasets.ClassLabel)],
        }
        if several := next((task for task, found in known.items() if len(found) > 1), None):
            raise self._error(f"has several columns for {several}: {', '.join(known[several])}; keep one")
        columns = {"image": images[0], **{task: found[0] for task, found in known.items() if found}}
        if len(columns) == 1:
            raise self._error(
                f"has no ClassLabel, no column {', '.join(CAPTIONS)} and no objects with a bbox and a category that is "
                f"a ClassLabel, but {', '.join(features)}: no task fits"
            )
        return columns

    def _error(self, what: str) -> FcbenchError:
        return FcbenchError(f"data set hf:{self.typed} {what}.")


def _categories(kind: Any) -> Any:
    """Type of the category of a column of objects, stored as lists by field or as a list of objects; None otherwise."""
    by_field = {name: getattr(of, "feature", None) for name, of in kind.items()} if isinstance(kind, dict) else {}
    fields = by_field or getattr(kind, "feature", None)
    if not isinstance(fields, dict) or fields.get("bbox") is None:
        return None
    return next((fields[name] for name in CATEGORIES if name in fields), None)


def _captions(value: Any) -> tuple[str, ...]:
    """A row's captions, stripped of white space."""
    each = [value] if isinstance(value, str) else value or []
    return tuple(text for one in each if (text := (one or "").strip()))


def _objects(value: Any, size_px: tuple[int, int]) -> Objects | None:
    """A row's objects, in an image of (H, W); None if they are unknown, or one lacks its box or category."""
    if isinstance(value, dict):
        given = {name: each for name, each in value.items() if each is not None}
        value = [dict(zip(given, each)) for each in zip(*given.values())] if "bbox" in given else None
    rows = [row or {} for row in value or ()]
    boxes = np.array([row.get("bbox") or [None] * 4 for row in rows], np.float64).reshape(-1, 4)
    labels = [next((row[name] for name in CATEGORIES if name in row), None) for row in rows]
    if value is None or None in labels or not np.isfinite(boxes).all():
        return None
    areas = [w * h if row.get("area") is None else row["area"] for row, (_, _, w, h) in zip(rows, boxes)]
    crowd = [any(row.get(name) for name in CROWD) for row in rows]
    return Objects(size_px, np.array(labels, np.int64), boxes, np.array(areas, np.float64), np.array(crowd, bool))


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise FcbenchError('data sets of Hugging Face need the library: pip install "fcbench[hf]"') from None
    datasets.disable_progress_bars()
    return datasets


PLUGIN = HuggingFace()
