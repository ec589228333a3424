"""Hostile files of image coders and label coders. They have no checksum of their own: they stand behind the file's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz.cases import Case, Outcome
from benchmarks.fuzz.damage import damaged
from fcbench.core import registry
from fcbench.core.samples import Pose
from fcbench.labels.shared import detections
from fcbench.testing.fake_data import FakeDataset

_FOREIGN = ("depth", "segmentation")  # Labels that are pictures


class PictureSubject:
    """A coder of one file. `decode`: bytes to what they hold. `good`: clean files. `valid`: whether it is an output."""

    weight = 3.0

    def __init__(
        self,
        name: str,
        decode: Callable[[bytes], Any],
        good: Sequence[bytes],
        valid: Callable[[Any], bool],
        foreign: bool,
    ) -> None:
        self.name, self._decode, self._good, self._valid, self._foreign = name, decode, good, valid, foreign
        self._clean = [decode(data) for data in good]
        self.others: Sequence[bytes] = good

    def contains(self, case: Case) -> bool:
        return self._foreign

    def draw(self, rng: Random) -> Case:
        number = rng.randrange(len(self._good))
        return Case(self.name, "payload", {"number": number, "payload": damaged(self._good[number], rng, self.others)})

    def run(self, case: Case) -> Outcome:
        found = self._decode(case.data["payload"])
        if not self._valid(found):
            return Outcome.WRONG
        return Outcome.SAME if _equal(found, self._clean[case.data["number"]]) else Outcome.OTHER


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, detections.Said):
        return detections.same(a, b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)


def subjects() -> list[PictureSubject]:
    """Every image coder that is here with its weights, and every label coder."""
    y, x = np.mgrid[:24, :33]
    image = np.stack([8 * x % 256, 9 * y % 256, (x * y) % 256]).astype(np.uint8)
    found = []
    for name in registry.names("image"):
        plugin = registry.get("image", name)
        if name == "compressai_image":  # its weights are a download
            continue
        sweep = plugin.sweep()
        good = [plugin.encode(image, knobs) for knobs in (sweep[0], sweep[-1])]
        found.append(PictureSubject(f"image:{name}", partial(_read, plugin), good, _is_image, foreign=True))
    for task in registry.names("label"):
        label = registry.get("label", task)
        good = [label.encode(output) for output in _outputs(task)]
        found.append(PictureSubject(f"label:{task}", label.decode, good, lambda value: True, task in _FOREIGN))
    for subject in found:
        subject.others = [data for other in found for data in other._good]
    return found


def _read(plugin: Any, data: bytes) -> Any:
    """The image of a file, whose headers are counted, as `fcbench verify` does."""
    image = plugin.decode(data)
    plugin.header_bytes(data)
    return image


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[0] == 3


def _outputs(task: str) -> list[Any]:
    targets: Mapping[str, Any] = FakeDataset().targets(2)
    if task in targets:
        small = np.zeros((2, 17, 3), np.float32)
        more: dict[str, Any] = {"pose": Pose(small, small[:, 0, :1], small[:, 0, 0]), "classification": 300}
        return [targets[task], more.get(task, targets[task])]
    rng = np.random.default_rng(0)
    numbers = rng.integers(-300, 900, (4, 6)).astype("<i2")
    return [detections.Said(numbers), detections.Said(numbers, (60, 80), (b"0a5b", b"", b"xyz", b"11"))]
