"""A data set in one file: bright squares on noise, with their number, for the task ``counting``.

fcbench run --dataset benchmarks/examples/dots.py --task benchmarks/examples/counting.py
"""

import numpy as np
import torch

from fcbench.core.samples import Dataset, DatasetMeta, DatasetPlugin, Sample

CELL_PX = 16


class Dots(Dataset):
    name, revision, tasks, meta = "dots", "1", ("counting",), DatasetMeta()

    def __init__(self, split, n, size_px):
        self.split, self.n, self.image_size_px = split, n, size_px

    def __len__(self):
        return self.n

    def _rng(self, index):  # the same index always gives the same sample; the splits share no seed
        return np.random.default_rng(2 * index + (self.split == "test"))

    def _filled(self, rng):
        return rng.random([side // CELL_PX for side in self.image_size_px]) < rng.random()

    def __getitem__(self, index):
        rng = self._rng(index)
        squares = np.kron(self._filled(rng), np.ones((CELL_PX - 4, CELL_PX - 4)))  # smaller than their cells
        image = rng.integers(0, 80, (3, *self.image_size_px), dtype=np.uint8)
        rows, columns = [np.arange(n) // (CELL_PX - 4) * 4 + np.arange(n) + 2 for n in squares.shape]
        image[:, rows[:, None], columns] += (150 * squares).astype(np.uint8)
        return Sample(f"{self.split}-{index}", torch.from_numpy(image), self.image_size_px)

    def targets(self, index):
        return {"counting": int(self._filled(self._rng(index)).sum())}


class Plugin(DatasetPlugin):
    tasks, needs_root = ("counting",), False

    def open(self, split, options):
        n = {"train": 1000, "test": 200}[split]
        return Dots(split, min(n, options.limit or n), options.image_size_px or (128, 128))


PLUGIN = Plugin()
