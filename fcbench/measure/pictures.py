"""A few test images as received at every measured point: features and each task's output, as pictures.

They are coded and read again, as when a point is measured, with models from the cache: nothing is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.codecs import Kind
from fcbench.core.progress import Report
from fcbench.core.samples import Detections
from fcbench.features.source import Readable, Source, Split
from fcbench.measure import drawing
from fcbench.measure.point import attempt
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import point_key
from fcbench.measure.study import Study
from fcbench.measure.trial import Trial, on_cpu

N_IMAGES = 3
Maps = Mapping[str, Tensor]


def make_pictures(study: Study, done: Collection[str]) -> dict[str, Any]:
    """Pictures of the first test images, as JSON data.

    Args:
        done: keys of the measured points; only these are drawn.

    Returns:
        ``images``: by sample id, its picture's URL. ``points``: each with ``keys`` of its rows by task, and
        ``samples``, each with the ``sample``'s id, its ``bytes``, ``features`` (a picture's URL) and by task
        ``outputs`` (`drawing.output`).
    """
    images: dict[str, str] = {}
    points: list[dict[str, Any]] = []
    for name in study.suite.encoders:
        shown = _Shown(study, study.source(study.encoder(name), Report(0)))
        images |= shown.images()
        for job in jobs(study.suite):
            keys = {task: key for task in job.tasks if (key := point_key(shown.trial, job, task)) in done}
            if keys and job.kind != Kind.LABEL:  # labels are outputs for uncoded features
                samples = attempt(partial(shown.samples, job, list(keys)), list(keys), {})
                points += [{"keys": keys, "samples": samples}] if samples else []
    return {"images": images, "points": points}


class _Shown:
    """The first test images of one encoder."""

    def __init__(self, study: Study, source: Source) -> None:
        seed, test = study.suite.seeds[0], source.test.features
        few = replace(test, samples=test.samples[:N_IMAGES], arrays={n: test.arrays[n][:N_IMAGES] for n in test.specs})
        self.data = Readable(source.test.dataset, range(len(few)))
        self.trial = Trial(study, source, seed, Report(0))  # reads
        self.few = Trial(study, replace(source, test=Split(self.data, few)), seed, Report(0))  # sends
        self.finest = next(iter(few.specs))
        self.colours = drawing.Colours.of(few.batch(range(len(few)))[self.finest], source.stats[self.finest])
        self._most: dict[tuple[str, int], float] = {}

    def images(self) -> dict[str, str]:
        """Pictures by sample id; none where there are no images."""
        if not self.data.has_images:
            return {}
        samples = [self.data[i] for i in range(len(self.data))]
        return {sample.id: drawing.photograph(sample.image) for sample in samples}

    def samples(self, job: Job, tasks: list[str]) -> list[dict[str, Any]]:
        """Pictures and sizes of each image at a point."""
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            sender, path = self.few.sender(job), Path(folder) / "few.fcb"
            sent = sender.send(path, lambda *_: None)
            received = [batch.maps for batch in sender.receive(path)]
            maps = {name: torch.cat([m[name] for m in received]) for name in received[0]}
            return [
                {
                    "sample": sample.id,
                    "bytes": sent.sample_bytes[i],
                    "features": drawing.colours(self.colours.picture(maps[self.finest][i])),
                    "outputs": {t: out for t in tasks if (out := self._output(t, i, maps))},
                }
                for i, sample in enumerate(self.few.source.test.features.samples)
            ]

    def _output(self, task: str, index: int, maps: Maps) -> dict[str, str] | None:
        """A task's output for an image; None if it cannot be drawn."""
        reader = self.trial.reader(task)
        head: Any = reader.model.head
        x = reader.model({name: m[index : index + 1] for name, m in maps.items()})
        batch: Any = reader.task.collate(reader.targets([index]))
        prediction = on_cpu(head.predict(x, batch))
        said = prediction[0]
        if isinstance(said, Detections):
            size_px = batch[0].size_px
        elif task in registry.names("label"):
            said, size_px = registry.get("label", task).output(prediction), self.few.source.test.features.image_px
        else:
            return None
        most = float(said.max()) if isinstance(said, np.ndarray) else 0.0
        most = self._most.setdefault((task, index), most)  # uncoded features come first
        return drawing.output(said, self.data.meta.names(task), size_px, most or 1.0)
