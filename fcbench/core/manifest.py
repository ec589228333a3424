"""Features that somebody else extracted: a folder with ``manifest.json``, which says what its arrays are::

    {"name": "dinov2_vits14",
     "maps": {"block12": {"layout": "NC", "file": "{id}.npy", "grid": [16, 16], "global_tokens": 1}},
     "samples": [{"id": "dog", "split": "train", "size_px": [480, 640]}, ...]}

``name`` is the model that made them. A map's ``layout`` names the axes of its arrays: C and H, W, or C and N (tokens),
or C alone, in any order, with B in front if a file holds several samples: ``BCHW``, ``HWC``, ``BNC``, ``NC``.
``file`` is a path below the folder. With ``{id}`` in it there is a file per sample, whose B, if any, is 1; with
``{split}`` alone, row i is the i-th sample of the split. It is a ``.npy`` with one map, or a ``.safetensors`` whose
tensors have the maps' names. ``grid`` is the [h, w] of N tokens, row by row, after ``global_tokens`` tokens without a
place (class, registers), which are coded as a map of their own, ``NAME.global``. Tokens without a grid are coded as a
map of 1 x N. All samples have the same shapes. ``size_px`` is the [H, W] of the original image, to which bits per pixel
refer; of other modalities the size of the input, [1, number of tokens]. ``"lower_is_better": true`` applies to the
number that a metric command prints.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.features import GLOBAL, FeatureSpec
from fcbench.core.files import disk_errors
from fcbench.core.rules import Positive, Rule, named, obey, within

FILE = "manifest.json"
_AXES = ({"C", "H", "W"}, {"C", "N"}, {"C"})
_LAYOUT = Rule(
    "of the axes C and H, W, or C and N, or C alone, with B in front where a file holds several samples",
    lambda text: set(text.removeprefix("B")) in _AXES and len(set(text)) == len(text),
)
_NAME = Rule(
    f"of letters, digits, '.', '_' and '-' that does not end in {GLOBAL}",
    lambda text: re.fullmatch(r"\w[\w.-]*", text) is not None and not text.endswith(GLOBAL),
)
_FILE = Rule(
    "of a .npy or .safetensors file below the manifest, with {id} or {split} in it",
    lambda text: text.endswith((".npy", ".safetensors")) and ("{id}" in text or "{split}" in text) and _below(text),
)


def _below(path: str) -> bool:
    return ".." not in Path(path).parts and not Path(path).is_absolute()


Maps = Mapping[str, np.ndarray]


@named
@dataclass(frozen=True)
class Entry:
    """How the arrays of one map lie in the folder."""

    layout: Annotated[str, _LAYOUT]
    file: Annotated[str, _FILE]
    grid: tuple[Positive, Positive] | None = None
    global_tokens: Annotated[int, within(0, 10**6)] = 0

    def __post_init__(self) -> None:
        obey(self)
        if (self.grid and "N" not in self.layout) or (self.global_tokens and not self.grid):
            raise FcbenchError("a grid is of tokens (layout NC or BNC), and global_tokens are those beside a grid")

    @property
    def axes(self) -> str:
        """Axes of one sample's array."""
        return self.layout.removeprefix("B")

    @property
    def placed(self) -> bool:
        """Whether its places are those of an image."""
        return self.grid is not None or "H" in self.axes

    @property
    def _channels_first(self) -> str:
        return "".join(a for a in "CHWN" if a in self.axes)

    def to_maps(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """Maps [C, h, w] of a sample's array."""
        x = array.transpose([self.axes.index(a) for a in self._channels_first])
        x = x if x.ndim == 3 else x.reshape(len(x), 1, -1)
        if self.grid is None:
            return {name: x}
        expected = self.global_tokens + self.grid[0] * self.grid[1]
        if x.shape[2] != expected:
            raise ValueError(f"it has {x.shape[2]} tokens, {self.global_tokens} and a grid {self.grid} are {expected}")
        maps = {name: x[..., self.global_tokens :].reshape(-1, *self.grid)}
        return maps | ({name + GLOBAL: x[..., : self.global_tokens]} if self.global_tokens else {})

    def to_array(self, name: str, maps: Maps) -> np.ndarray:
        """The inverse of `to_maps`."""
        x = maps[name]
        if self.grid is not None:
            x = np.concatenate([m.reshape(len(m), -1) for m in (maps.get(name + GLOBAL, x[:, :0]), x)], 1)
        x = x if "H" in self.axes else x.reshape(len(x), *[-1] * ("N" in self.axes))
        return x.transpose([self._channels_first.index(a) for a in self.axes])


@named
@dataclass(frozen=True)
class Recorded:
    """A sample."""

    id: Annotated[str, Rule("that stays below the folder", _below)]
    split: Literal["train", "test"]
    size_px: tuple[Positive, Positive]

    def __post_init__(self) -> None:
        obey(self)


class Samples(tuple[Recorded, ...]):
    """The samples of a manifest, in its order."""


@named
@dataclass(frozen=True)
class Manifest:
    """A folder of features. Maps are float32 [C, h, w]."""

    folder: Path
    sha256: str  # of ``manifest.json``
    name: Annotated[str, _NAME]
    maps: Mapping[Annotated[str, _NAME], Entry]
    samples: Samples
    lower_is_better: bool = False

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raise `FcbenchError`: no manifest, or one that does not follow this module's format."""
        path = folder / FILE
        try:
            text = path.read_bytes()
            raw = json.loads(text)
            raw["maps"] = {name: Entry(**entry) for name, entry in raw["maps"].items()}
            raw["samples"] = Samples(Recorded(**sample) for sample in raw["samples"])
            manifest = cls(folder, hashlib.sha256(text).hexdigest(), **raw)
            obey(manifest)
        except OSError as error:
            raise FcbenchError(
                f"cannot read {path}, which says what the arrays beside it are: {error.strerror}"
            ) from None
        except FcbenchError as error:
            raise FcbenchError(f"{path}: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else str(error).rpartition("__init__() ")[2]
            raise FcbenchError(f"{path} is not a manifest of features: {said}") from None
        if len(manifest._rows) < len(manifest.samples):
            raise FcbenchError(f"{path} names a sample of a split twice")
        arrays = [e.file for e in manifest.maps.values() if e.file.endswith(".npy")]
        if not manifest.maps or len(set(arrays)) < len(arrays):
            raise FcbenchError(f"{path} must name a map, and another .npy for each")
        return manifest

    def of_split(self, split: str) -> tuple[Recorded, ...]:
        """The samples of a split. Raises `FcbenchError`: there are none."""
        samples = tuple(s for s in self.samples if s.split == split)
        if not samples:
            why = {"train": "codecs are trained on it and take statistics from it", "test": "it is what is measured"}
            raise FcbenchError(f"{self.folder / FILE} has no sample of the split {split!r}: {why[split]}")
        return samples

    @cached_property
    def _rows(self) -> dict[tuple[str, str], int]:
        """Indices of samples in their splits."""
        n, rows = defaultdict[str, int](int), dict[tuple[str, str], int]()
        for s in self.samples:
            rows[s.split, s.id] = n[s.split]
            n[s.split] += 1
        return rows

    @cached_property
    def _n(self) -> dict[str, int]:
        return {which: sum(s.split == which for s in self.samples) for which in ("train", "test")}

    @property
    def specs(self) -> dict[str, FeatureSpec]:
        """The coded maps: those of the folder, then their global tokens. Strides are relative to the tallest map's,
        which is unknown and set to 1."""
        heights = {n: h for n, (_, h, _) in self.shapes.items() if n in self.maps and self.maps[n].placed}
        strides = {n: max(1, round(max(heights.values()) / h)) for n, h in heights.items()}
        return {
            n: FeatureSpec(n, c, strides.get(n, 1), "BCHW" if n in strides else "BNC")
            for n, (c, _, _) in self.shapes.items()
        }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """(C, h, w) of the coded maps, from the first sample. Raises `FcbenchError`: it cannot be read."""
        return {name: m.shape for name, m in self._maps(self.samples[0]).items()}

    def path(self, entry: Entry, sample: Recorded) -> Path:
        """Path of a sample's array below the folder."""
        return Path(entry.file.replace("{id}", sample.id).replace("{split}", sample.split))

    @property
    def files(self) -> list[Path]:
        """All files of the folder that are read. Raises `FcbenchError`: one is missing."""
        by_path = {self.path(e, s): s for e in self.maps.values() for s in self.samples}
        for path, sample in by_path.items():
            if not (self.folder / path).is_file():
                raise FcbenchError(f"{self.folder / path} is missing; {FILE} names it for sample {sample.id}")
        return [self.folder / FILE, *(self.folder / path for path in by_path)]

    def read_maps(self, sample: Recorded) -> dict[str, np.ndarray]:
        """The maps of a sample. Raises `UnreadableSample`: an array is damaged, or has another shape than the first
        sample's, NaN or infinity."""
        maps = self._maps(sample)
        for name, m in maps.items():
            if m.shape != self.shapes[name]:
                raise UnreadableSample(
                    f"{self.folder}: map {name} of sample {sample.id} has the shape (C, h, w) = {m.shape}, that of "
                    f"{self.samples[0].id} has {self.shapes[name]}: all must be of one shape"
                )
            if not np.isfinite(m).all():
                raise UnreadableSample(f"{self.folder}: map {name} of sample {sample.id} holds NaN or infinity")
        return maps

    def _maps(self, sample: Recorded) -> dict[str, np.ndarray]:
        maps: dict[str, np.ndarray] = {}
        for name, entry in self.maps.items():
            path = self.folder / self.path(entry, sample)
            try:
                n_rows = None if entry.axes == entry.layout else 1 if "{id}" in entry.file else self._n[sample.split]
                row = 0 if n_rows == 1 else self._rows[sample.split, sample.id]
                maps |= entry.to_maps(name, _array(path, name, entry.layout, n_rows, row))
            except Exception as error:  # numpy and safetensors raise what they like of damaged files
                said = error.strerror if isinstance(error, OSError) and error.strerror else error
                raise UnreadableSample(f"{path}: cannot read map {name} of sample {sample.id}: {said}") from error
        return dict(sorted(maps.items(), key=lambda item: item[0].endswith(GLOBAL)))


def _array(path: Path, name: str, layout: str, n_rows: int | None, row: int) -> np.ndarray:
    """A sample's array, float32, without B."""
    array: Any
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        from safetensors import safe_open

        array = safe_open(path, framework="pt").get_tensor(name).float().numpy()  # PyTorch knows bfloat16
    if array.ndim != len(layout) or (n_rows is not None and len(array) != n_rows):
        rows = "" if n_rows is None else f" with B = {n_rows}"
        raise ValueError(f"its shape {list(array.shape)} is not {layout}{rows}")
    return np.asarray(array if n_rows is None else array[row], np.float32)


class Decoded:
    """A folder to be filled as another one is: the same files and names, float32, of the samples that are added."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self._manifest, self._folder = manifest, folder
        self._ids: list[str] = []
        self._rows = defaultdict[tuple[Path, str], list[np.ndarray]](list)  # of files that hold a split

    def add(self, sample: Recorded, maps: Maps) -> None:
        """Add the maps of a sample, [C, h, w]."""
        self._ids.append(sample.id)
        files = defaultdict[Path, dict[str, np.ndarray]](dict)
        for name, entry in self._manifest.maps.items():
            path, array = self._manifest.path(entry, sample), entry.to_array(name, maps)
            if "{id}" in entry.file:
                files[path][name] = array[None] if entry.layout != entry.axes else array
            else:
                self._rows[path, name].append(array)
        self._write(files)

    def finish(self) -> None:
        """Write files of several samples, and the manifest of those that were added."""
        files = defaultdict[Path, dict[str, np.ndarray]](dict)
        for (path, name), arrays in self._rows.items():
            files[path][name] = np.stack(arrays)
        self._write(files)
        raw = json.loads((self._manifest.folder / FILE).read_bytes())
        raw["samples"] = [s for s in raw["samples"] if s["split"] == "test" and s["id"] in set(self._ids)]
        (self._folder / FILE).write_text(json.dumps(raw), encoding="utf-8")

    def _write(self, files: Mapping[Path, Maps]) -> None:
        from safetensors.numpy import save_file

        for path, arrays in files.items():
            with disk_errors(self._folder):
                (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
                if path.suffix == ".npy":
                    (array,) = arrays.values()
                    np.save(self._folder / path, array)
                else:
                    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
                    save_file(whole, self._folder / path)
