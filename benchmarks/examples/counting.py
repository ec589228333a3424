"""A task in one file: how many things are in the picture. Its data set is ``dots.py``."""

import numpy as np
import torch
from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import MetricSpec, Task, TaskPlugin


class CountingHead(nn.Module):
    """A density over the grid whose sum is the count."""

    def __init__(self, width):
        super().__init__()
        self.density = nn.Conv2d(width, 1, 1)

    def predict(self, x, batch):
        return self.density(x).sum(dim=(1, 2, 3))

    def loss(self, x, batch):
        return (self.predict(x, batch) - batch.to(x.device)).square().mean()


def values(sums):
    """Metric values from sums of squared errors and of samples."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"rmse": np.sqrt(sums[..., 0] / sums[..., 1])}


class Counting(Task):
    name, metrics, n_statistics = "counting", (MetricSpec("rmse", higher_is_better=False, unit="things"),), 2
    values = staticmethod(values)

    def head(self, width, grid, image_px):
        return CountingHead(width)

    def collate(self, targets):
        return torch.tensor([float(t["counting"]) for t in targets])

    def statistics(self, prediction, batch):
        errors = (prediction.detach().cpu().double() - batch.double()).square()
        return torch.stack([errors, torch.ones_like(errors)], 1).numpy()


class Plugin(TaskPlugin):
    values = staticmethod(values)

    def build(self, train, test):
        if "counting" not in train.tasks:
            raise FcbenchError(f"data set {train.name!r} does not count the things in its pictures")
        return Counting()


PLUGIN = Plugin()
