"""Layout of a user's own folder: splits, images, targets beside them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcbench.core.samples import VOID
from fcbench.data.shared.layout import Layout, files_below, some

IMAGES, MASKS, DEPTH = "images", "masks", "depth"
CLASSES_FILE, DEPTH_FILE = "classes.txt", "depth.json"
SPLITS = ("train", "val", "test")
LAYOUT = Layout(
    "folder",
    "ROOT/{train,test}/CLASS/*.jpg (or .jpeg, .png; val in place of test, or for training beside it); or "
    "ROOT/{train,test}/images/*.jpg (or images/CLASS/*.jpg) and, for each task, masks/*.png of the same stems with "
    "ROOT/classes.txt, depth/*.png (16 bits) or *.npy of the same stems with ROOT/depth.json, COCO-style *.json beside "
    "images/; without a split the same in ROOT itself (from images of your own)",
)
UNIT_KEYS = ("metres_per_unit", "max_m")


def split_folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """Split -> its folders; empty if the root holds the data without a split."""
    there = [s for s in SPLITS if (root / s).is_dir()]
    if not there:
        return {}
    if "train" not in there or len(there) < 2:
        raise LAYOUT.error(root, f"holds {' and '.join(there)} only: train and test (or val) go together")
    test = there[-1]
    train = tuple(root / s for s in there if s != test)
    return {"train": train[::-1], "test": (root / test,)}


def has_targets(folder: Path) -> bool:
    """Whether a split's folder holds images with targets beside them, not class folders."""
    return any((folder / name).is_dir() for name in (IMAGES, MASKS, DEPTH))


def keyed_images(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Images of a split's folder by key, and the class of each if they are in class folders. A key is the path below
    ``images`` without the suffix."""
    home = folder / IMAGES
    if not home.is_dir():
        raise LAYOUT.error(home, "is missing")
    if unknown := [p.name for p in folder.iterdir() if p.is_dir() and p.name not in (IMAGES, MASKS, DEPTH)]:
        raise LAYOUT.error(folder, f"holds {some(sorted(n for n in unknown))} beside images")
    if not any(p.is_dir() and p.name[0] not in "._" for p in home.iterdir()):
        return _by_key(home, LAYOUT.images_in(home)), {}
    names = LAYOUT.class_names(home)
    if splits := [name for name in names if name in SPLITS]:
        raise LAYOUT.error(home, f"holds {some(splits)}: splits come first, as {splits[0]}/{IMAGES}")
    if loose := [p.name for p in home.iterdir() if p.is_file()]:
        raise LAYOUT.error(home, f"holds {some(sorted(loose))} beside class folders")
    images = {name: _by_key(home, LAYOUT.images_in(home / name)) for name in names}
    return {k: p for of in images.values() for k, p in of.items()}, {k: n for n, of in images.items() for k in of}


def partners(home: Path, images: Mapping[str, Path], suffixes: Sequence[str]) -> dict[str, Path]:
    """The file of each image in a folder of targets, by key. Raises `FcbenchError`: they do not match one to one."""
    found = [p for p in files_below(home) if p.name[0] != "."]
    if wrong := [p.relative_to(home).as_posix() for p in found if p.suffix.lower() not in suffixes]:
        raise LAYOUT.error(home, f"holds {some(wrong)}: expected {' or '.join(suffixes)}")
    files = _by_key(home, found)
    if lonely := [path.name for key, path in images.items() if key not in files]:
        raise LAYOUT.error(home, f"has no file for image {some(lonely)}")
    if stray := [path.name for key, path in files.items() if key not in images]:
        raise LAYOUT.error(home, f"holds {some(stray)}, for which there is no image")
    return files


def _by_key(home: Path, files: Sequence[Path]) -> dict[str, Path]:
    keyed: dict[str, Path] = {}
    for path in files:
        key = path.relative_to(home).with_suffix("").as_posix()
        if key in keyed:
            raise LAYOUT.error(home, f"holds {keyed[key].name} and {path.name}: stems must differ")
        keyed[key] = path
    return keyed


def annotation_files(folder: Path) -> list[Path]:
    """COCO-style files of a split's folder."""
    return sorted(p for p in folder.glob("*.json") if p.is_file() and p.name != DEPTH_FILE)


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit and range of the numbers in depth files."""

    metres_per_unit: float
    max_m: float  # readings beyond it are invalid


def read_unit(path: Path) -> Unit:
    """The unit of depth files."""
    example = 'write {"metres_per_unit": 0.001, "max_m": 10} with your unit and largest valid depth'
    if not path.is_file():
        raise LAYOUT.error(path, f"is missing: {example}")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise LAYOUT.error(path, f"is not JSON ({exc}): {example}") from exc
    if not isinstance(content, dict) or set(content) != set(UNIT_KEYS):
        raise LAYOUT.error(path, f"must hold {' and '.join(UNIT_KEYS)}, nothing else: {example}")
    for key, value in content.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise LAYOUT.error(path, f"holds {key} {value!r}: expected a number above 0")
    return Unit(*(float(content[key]) for key in UNIT_KEYS))


def read_class_names(path: Path) -> tuple[str, ...]:
    """Names of the classes of masks, one per line; the first line is class 0."""
    if not path.is_file():
        raise LAYOUT.error(path, "is missing: write the name of class 0 in its first line, of class 1 in its second")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as exc:
        raise LAYOUT.error(path, f"cannot be read ({exc})") from exc
    if wrong := [i for i, name in enumerate(names, 1) if not name or not name.isprintable()]:
        raise LAYOUT.error(path, f"has no printable name in line {wrong[0]}")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise LAYOUT.error(path, f"names {some(twice)} twice")
    if not 1 <= len(names) <= VOID:
        raise LAYOUT.error(path, f"names {len(names)} classes, expected 1 to {VOID}")
    return tuple(names)
