"""COCO: its splits, images and annotations; see the data sets ``coco`` and ``coco_voc``."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import OBJECTS, DataOptions, Dataset, DatasetMeta, DatasetPlugin, Sample
from fcbench.data.shared import coco_format
from fcbench.data.shared.coco_format import Image
from fcbench.data.shared.contents import Contents
from fcbench.data.shared.folders import hash_split
from fcbench.data.shared.images import PHOTOGRAPHS, LazyTargets, as_sample, read_aligned_image, resize_targets
from fcbench.data.shared.layout import Layout, some

LAYOUT = Layout(
    "coco",
    "ROOT/annotations/{instances,person_keypoints,captions}_{train2017,val2017}.json and "
    "ROOT/{train2017,val2017}/*.jpg (or ROOT/images/, with or without such folders; another year as well), from "
    "https://cocodataset.org/#download",
)
KINDS = {
    "segmentation": "instances",
    "detection": "instances",
    "instance_segmentation": "instances",
    "pose": "person_keypoints",
    "keypoint_detection": "person_keypoints",
    "captioning": "captions",
}
"""Task -> the annotation files that it needs."""
_FILE = re.compile(rf"({'|'.join(dict.fromkeys(KINDS.values()))})_((train|val)\w*)\.json")


def official_splits(folder: Path) -> dict[str, str]:
    """Role, ``train`` or ``val``, -> the one split with annotation files, such as ``train2017``."""
    if not folder.is_dir():
        raise LAYOUT.error(folder, "is missing")
    by_role: dict[str, set[str]] = {}
    for path in folder.iterdir():
        if match := _FILE.fullmatch(path.name):
            by_role.setdefault(match[3], set()).add(match[2])
    if not by_role:
        raise LAYOUT.error(folder, "holds no annotation files")
    for tags in by_role.values():
        if len(tags) > 1:
            raise LAYOUT.error(folder, f"holds annotations of {' and '.join(sorted(tags))}: keep one")
    return {role: tags.pop() for role, tags in by_role.items()}


ROLES = {"train": "train", "test": "val"}
READERS: dict[str, Callable[..., dict[int, Any]]] = {
    "segmentation": coco_format.instances,
    "pose": coco_format.poses,
    "captioning": coco_format.captions,
    "detection": coco_format.objects,
    "instance_segmentation": partial(coco_format.objects, with_regions=True),
    "keypoint_detection": partial(coco_format.objects, n_keypoints=17),
}
"""Task -> annotations by image of a file's content."""
OUTLINED = ("segmentation", "instance_segmentation")  # Tasks that need the objects' outlines


@dataclass
class Coco(Dataset):
    """One split of COCO, resized where `DataOptions` asks for it."""

    split: str
    revision: str
    folder: Path
    images: tuple[Image, ...]
    annotations: Mapping[str, Mapping[int, Any]]  # task -> image -> annotation
    tasks: tuple[str, ...]
    meta: DatasetMeta
    image_size_px: tuple[int, int] | None
    # why the split lacks a task: one line that says what was expected where
    absent: Mapping[str, str] = field(default_factory=dict)
    name: str = LAYOUT.name

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        entry = self.images[index]
        path = self.folder / entry.file_name
        image = read_aligned_image(path)
        height, width = image.shape[-2:]
        if (height, width) != entry.size_px:
            raise UnreadableSample(
                f"image {path} is {height}x{width}, its annotations are for "
                f"{entry.size_px[0]}x{entry.size_px[1]} (H x W): use COCO's original images"
            )
        return as_sample(f"{self.folder.name}/{Path(entry.file_name).stem}", image, self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        entry = self.images[index]
        new_px = self.image_size_px or entry.size_px

        def one(task: str) -> Any:
            known = self.annotations[task][entry.id]
            if task == "segmentation":
                known = coco_format.semantic_mask(known, entry.size_px)
            if task == "instance_segmentation":
                known = coco_format.with_codes(known)
            return resize_targets({task: known}, entry.size_px, new_px)[task]

        return LazyTargets(self.tasks, one)

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        return {f"{self.folder.name}/{entry.file_name}": entry.size_px for entry in self.images}


def image_folders(root: Path, tags: Mapping[str, str]) -> dict[str, Path]:
    """Folders of the official splits' images, by role; splits without images are left out."""
    flat, folders = root / "images", {}
    there = {p.name for p in flat.iterdir()} if flat.is_dir() else set()
    for role, tag in tags.items():
        if found := [folder for folder in (root / tag, flat / tag) if folder.is_dir()]:
            folders[role] = found[0]
        elif there and there.isdisjoint(tags.values()) and not there.isdisjoint(_listed(root / "annotations", tag)):
            folders[role] = flat
    if not folders:
        raise LAYOUT.error(root, f"holds no images of {' or '.join(tags.values())}")
    return folders


def _listed(home: Path, tag: str) -> set[str]:
    """Names of the images of an official split."""
    path = min(home.glob(f"*_{tag}.json"), key=lambda path: path.stat().st_size)
    content = coco_format.read(path, LAYOUT)
    try:
        return {image.file_name for image in coco_format.images_of(content)}
    except (KeyError, TypeError, ValueError) as exc:
        raise LAYOUT.error(path, f"is not in COCO's format ({type(exc).__name__}: {exc})") from exc


def check_images(images: list[Image], folder: Path) -> None:
    """Refuse a folder that lacks images."""
    there = {p.name for p in folder.iterdir()}
    gone = [i.file_name for i in images if i.file_name not in there]
    if gone or not images:
        raise LAYOUT.error(folder, f"lacks {len(gone)} of {len(images)} annotated images ({some(gone)})")


def chosen(images: list[Image], split: Literal["train", "test"], limit: int | None) -> tuple[Image, ...]:
    """Images of train or test, taken from one official split."""
    by_name = {i.file_name: i for i in images}
    names = hash_split(by_name, split)
    if not names:
        raise FcbenchError(f"data set {LAYOUT.name!r}: cannot split {len(images)} image; at least 2 are needed")
    return tuple(by_name[n] for n in names[:limit])


def read_tasks(
    files: Mapping[str, Path], select: Callable[[list[Image]], tuple[Image, ...]]
) -> tuple[tuple[Image, ...], dict[str, dict[int, Any]], dict[str, tuple[str, ...]]]:
    """Images, annotations by task and image, and names of classes by task, of the annotation files by task; a file of
    boxes alone has no masks.

    `files`: those that are there. `select`: takes the images of the first file, gives those to be used; every file must
    list them.
    """
    images: tuple[Image, ...] = ()
    by_task: dict[str, dict[int, Any]] = {}
    names: dict[str, tuple[str, ...]] = {}
    read = lru_cache(1)(partial(coco_format.read, layout=LAYOUT))  # tasks of one file follow each other
    for task, path in files.items():
        content = read(path)
        try:
            listed = coco_format.images_of(content)
            images = images or select(listed)
            if task in OUTLINED and content["annotations"] and not coco_format.has(content, "segmentation"):
                continue
            by_task[task] = READERS[task](content, images)
            if task != "captioning":
                names[task] = coco_format.category_names(content)
        except (KeyError, TypeError, ValueError) as exc:
            raise LAYOUT.error(path, f"is not a COCO {KINDS[task]} file ({type(exc).__name__}: {exc})") from exc
        known = {i.id for i in listed}
        lost = [i.file_name for i in images if i.id not in known or (task == "captioning" and not by_task[task][i.id])]
        if lost:
            raise LAYOUT.error(path, f"lacks {some(lost)}, which other files list: use one release")
    return images, by_task, names


def meta_of(names: Mapping[str, tuple[str, ...]]) -> DatasetMeta:
    """Facts about a split, of the names of its categories by task."""
    classes = ("background", *names["segmentation"]) if "segmentation" in names else ()
    category_names = {task: names[task] for task in OBJECTS if task in names}
    return DatasetMeta(class_names=classes, task_models=PHOTOGRAPHS, category_names=category_names)


class CocoPlugin(DatasetPlugin):
    """COCO from ``--data-root``."""

    tasks = tuple(KINDS)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Coco:
        root = LAYOUT.root(options)
        home = root / "annotations"
        tags = official_splits(home)
        folders = image_folders(root, tags)
        alone = len(folders) == 1
        role = next(iter(folders)) if alone else ROLES[split]
        tag, folder = tags[role], folders[role]
        expected = {task: home / f"{kind}_{tag}.json" for task, kind in KINDS.items()}
        files = {task: path for task, path in expected.items() if path.is_file()}
        listed: list[Image] = []

        def select(images: list[Image]) -> tuple[Image, ...]:
            check_images(images, folder)
            listed.extend(images)
            if alone:
                return chosen(images, split, options.limit)
            return tuple(images[: options.limit])

        images, annotations, names = read_tasks(files, select)
        used = [*files.values(), *(folder / i.file_name for i in listed)]
        absent = {t: LAYOUT.error(path, "is missing") for t, path in expected.items() if t not in files}
        absent |= {t: LAYOUT.error(path, "holds boxes alone") for t, path in files.items() if t not in annotations}
        return Coco(
            split,
            ("hash-split-" if alone else "") + Contents(root, options.cache_dir).revision(used),
            folder,
            images,
            annotations,
            tuple(annotations),
            meta_of(names),
            options.image_size_px,
            {task: str(error) for task, error in absent.items()},
        )
