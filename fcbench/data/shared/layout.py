"""Folders of a data set: where files are expected, and errors if they are elsewhere.

Links are followed, also out of the data set's folder: data sets are often made of links, nothing is written through
them, and the revision is a hash of the contents that they lead to. One that leads nowhere is an error.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Layout:
    """Expected layout of a data set's files."""

    name: str  # of the data set
    expected: str  # the layout and where to get the data, for messages

    def error(self, path: Path, problem: str) -> FcbenchError:
        """A one-line error for data with another layout."""
        return FcbenchError(f"data set {self.name!r}: {path} {problem}. Expected: {self.expected}")

    def root(self, options: DataOptions) -> Path:
        """The folder of the data set on disk. Raises `FcbenchError`: no root was given, or it is not a directory."""
        if options.root is None:
            raise FcbenchError(f"data set {self.name!r} needs a folder: give --data-root DIR with {self.expected}")
        if not options.root.is_dir():
            raise self.error(options.root, "is not a directory")
        return options.root

    def images_in(self, folder: Path) -> list[Path]:
        """Image files of a folder, sorted by name. Raises `FcbenchError`: the folder is missing, cannot be read or
        holds no image."""
        if not folder.is_dir():
            raise self.error(folder, "is missing")
        try:
            files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and _is_file(p)]
        except OSError as exc:
            raise self.error(folder, f"cannot be read ({exc.strerror})") from exc
        if not files:
            raise self.error(folder, "holds no images")
        self._require_utf8(folder, [p.name for p in files])
        return sorted(files, key=lambda p: p.name)

    def class_names(self, folder: Path) -> tuple[str, ...]:
        """Names of the class folders in a folder, sorted. Raises `FcbenchError`: the folder is missing or holds no
        folders."""
        if not folder.is_dir():
            raise self.error(folder, "is missing")
        names = [p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"]
        if not names:
            raise self.error(folder, "holds no class folders")
        self._require_utf8(folder, names)
        return tuple(sorted(names))

    def _require_utf8(self, folder: Path, names: Sequence[str]) -> None:
        if wrong := [name for name in names if not name.isprintable()]:
            raise self.error(folder, f"holds a name that is not printable UTF-8 ({ascii(wrong[0])}): rename it")

    def pairs(self, root: Path, images: Path, maps: Path) -> list[tuple[str, Path, Path]]:
        """(id, image, map) of two folders, paired by stem; maps are PNG files. Raises `FcbenchError`: a folder is
        missing or empty, or an image has no map."""
        files, there = self.images_in(images), {p.name for p in self.images_in(maps)}
        if lonely := [p.name for p in files if f"{p.stem}.png" not in there]:
            raise self.error(maps, f"has no PNG for {some(lonely)}")
        return [(p.relative_to(root).with_suffix("").as_posix(), p, maps / f"{p.stem}.png") for p in files]

    def mat(self, path: Path, key: str) -> np.ndarray:
        """A variable of a MATLAB file of version 5 to 7, without its unit dimensions. Raises `FcbenchError`: the file
        is missing or damaged, or has no such variable."""
        if not path.is_file():
            raise self.error(path, "is missing")
        try:
            return np.asarray(scipy.io.loadmat(path, squeeze_me=True)[key])
        except Exception as exc:  # a damaged file makes scipy raise many types
            raise self.error(path, f"is damaged or holds no {key} ({type(exc).__name__}: {exc})") from exc


def files_below(folder: Path) -> list[Path]:
    """Files of a folder and the folders in it and behind its links, sorted; a link that leads back is not followed."""
    files = []
    for home, folders, names in os.walk(folder, followlinks=True):
        here = Path(home)
        if here.resolve() in {p.resolve() for p in here.parents}:
            folders.clear()
        else:
            files += [here / name for name in names if _is_file(here / name)]
    return sorted(files)


def _is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link that leads nowhere, which will be an error."""
    return path.is_file() or not path.exists()


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
