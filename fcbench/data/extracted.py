"""Features that somebody else extracted, with ``manifest.json`` (`run --features FOLDER`); there are no images.

What the manifest says is in ``fcbench/core/manifest.py``. A sample's image is its maps one after the other, float32
[n, 1, 1]; the encoder of the same name takes them apart.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fcbench.core.errors import FcbenchError
from fcbench.core.manifest import Manifest
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin, Sample
from fcbench.data.shared.contents import Contents


class Extracted(Dataset):
    """One split of a folder."""

    name, tasks, image_size_px, resizing, has_images = "extracted", ("features",), (1, 1), "", False

    def __init__(self, manifest: Manifest, split: str, revision: str, options: DataOptions) -> None:
        self.split, self.revision, self.manifest = split, revision, manifest
        self.samples = manifest.of_split(split)[: options.limit]
        commands = {"features": options.metric_command} if options.metric_command else {}
        self.meta = DatasetMeta(commands=commands, lower_is_better=manifest.lower_is_better)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        values = np.concatenate([m.reshape(-1) for m in self.manifest.read_maps(sample).values()])
        return Sample(sample.id, torch.from_numpy(values)[:, None, None], sample.size_px)

    def targets(self, index: int) -> dict[str, Any]:
        """The manifest and the sample, by which its maps are read."""
        return {"features": (self.manifest, self.samples[index])}


class Plugin(DatasetPlugin):
    """Features that somebody else extracted."""

    tasks = ("features",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Extracted:
        if options.image_size_px:
            raise FcbenchError(
                "features of --features have the size that they were extracted at: leave out --image-size"
            )
        manifest = Manifest.read(options.root or Path())
        for which in ("train", "test"):
            manifest.of_split(which)
        revision = Contents(manifest.folder, options.cache_dir).revision(manifest.files)
        return Extracted(manifest, split, revision, options)


PLUGIN = Plugin()
