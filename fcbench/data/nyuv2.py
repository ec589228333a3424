"""NYU Depth V2, labelled part: 1449 indoor frames 640x480, split 795/654 (on disk: --data-root).

Depth is the sensor's own (``rawDepths``, as the usual evaluations take it), in metres; 0 and readings of 10 m or more
are invalid. The meta states the crop of Eigen et al., for which the depth task also gives the published metrics.

References:
    Silberman, Hoiem, Kohli, Fergus, *Indoor Segmentation and Support Inference from RGBD Images*, ECCV 2012.
    Eigen, Puhrsch, Fergus, *Depth Map Prediction from a Single Image*, NeurIPS 2014 (the crop).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch import Tensor

from fcbench.core.errors import UnreadableSample
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin, Sample
from fcbench.data.shared.contents import Contents
from fcbench.data.shared.images import PHOTOGRAPHS, as_sample, resize_targets
from fcbench.data.shared.layout import Layout

FRAMES, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
LAYOUT = Layout(
    "nyuv2",
    f"ROOT/{FRAMES} and ROOT/{SPLITS} (keys trainNdxs, testNdxs), from "
    "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html: the labeled dataset, and the train/test split of "
    "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat",
)
KEYS = {"train": "trainNdxs", "test": "testNdxs"}
MAX_DEPTH_M = 10.0
EIGEN_CROP = (45 / 480, 471 / 480, 41 / 640, 601 / 640)
"""Top, bottom, left, right as shares of the height and width: rows 45:471, columns 41:601 of 480x640."""


@dataclass
class NYUv2(Dataset):
    """One split of NYU Depth V2, resized where `DataOptions` asks for it."""

    split: str
    revision: str
    path: Path  # the MATLAB 7.3 (HDF5) file; MATLAB's axes are reversed in it: images [N, 3, W, H], depth [N, W, H]
    numbers: tuple[int, ...]  # of the frames, from 0
    image_size_px: tuple[int, int] | None
    name: str = LAYOUT.name
    tasks: tuple[str, ...] = ("depth",)
    meta: DatasetMeta = DatasetMeta(max_depth_m=MAX_DEPTH_M, eval_crop=EIGEN_CROP, task_models=PHOTOGRAPHS)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        image = torch.from_numpy(self._read("images", index).transpose(0, 2, 1).copy())
        return as_sample(f"nyu-{self.numbers[index] + 1:04d}", image, self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        depth = clean_depth(self._read("rawDepths", index).T)
        size_px = (int(depth.shape[0]), int(depth.shape[1]))
        new_px = self.image_size_px or size_px
        return resize_targets({"depth": depth}, size_px, new_px)

    def _read(self, key: str, index: int) -> np.ndarray:
        """Read one frame. The file is opened each time: reading processes cannot share a handle."""
        number = self.numbers[index]
        try:
            with h5py.File(self.path, "r") as file:
                return np.asarray(file[key][number])
        except (OSError, KeyError, ValueError) as exc:
            raise UnreadableSample(f"cannot read {key} of frame {number + 1} in {self.path}: {exc}") from exc


def clean_depth(metres: np.ndarray) -> Tensor:
    """Float32 [H, W] metres, 0 where the reading is not finite, not positive, or at least `MAX_DEPTH_M`."""
    valid = np.isfinite(metres) & (metres > 0) & (metres < MAX_DEPTH_M)
    return torch.from_numpy(np.where(valid, metres, 0).astype(np.float32))


def n_frames(path: Path) -> int:
    """Frames in the MATLAB file."""
    if not path.is_file():
        raise LAYOUT.error(path, "is missing")
    try:
        with h5py.File(path, "r") as file:
            images, depths = file["images"].shape, file["rawDepths"].shape
    except (OSError, KeyError, AttributeError) as exc:
        raise LAYOUT.error(path, f"is cut short or not the labelled data set ({exc}): download it again") from exc
    if len(images) != 4 or images[1] != 3 or (images[0], *images[2:]) != depths:
        raise LAYOUT.error(path, f"holds images {images} and rawDepths {depths}, not [N, 3, W, H] and [N, W, H]")
    return int(depths[0])


def read_split(path: Path, split: str, n: int) -> tuple[int, ...]:
    """Frames of a split, from 0."""
    read = LAYOUT.mat(path, KEYS[split])
    numbers = read.ravel().astype(np.int64) - 1
    if not numbers.size or numbers.min() < 0 or numbers.max() >= n:
        raise LAYOUT.error(path, f"names {numbers.size} frames up to {numbers.max(initial=-1) + 1}; {FRAMES} holds {n}")
    return tuple(int(i) for i in numbers)


class Plugin(DatasetPlugin):
    """NYU Depth V2 from ``--data-root``."""

    tasks = ("depth",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root = LAYOUT.root(options)
        frames, splits = root / FRAMES, root / SPLITS
        numbers = read_split(splits, split, n_frames(frames))
        revision = Contents(root, options.cache_dir).revision([frames, splits])
        return NYUv2(split, revision, frames, numbers[: options.limit], options.image_size_px)


PLUGIN = Plugin()
