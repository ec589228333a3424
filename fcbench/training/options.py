"""How long and how fast readouts and codecs are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fcbench.core.rules import Positive, named, obey, within

VERSION = 7
"""Bump when training changes; older cache entries are then ignored."""
PREPARE_SAMPLES = 256
"""Training samples used to initialize codecs and adapters."""
Batch = Annotated[int, within(1, 1 << 16)]
LearningRate = Annotated[float, within(1e-9, 10)]


@named
@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train. The defaults suit features of the embedded encoders on two CPU cores.

    Attributes:
        task_steps, codec_steps: maximum; a training ends earlier if it has converged. An operating point that starts
            from its neighbour's weights takes a quarter of the steps, towards low rates at a third of the learning
            rate.
        tolerance: a training has converged when the last doubling of its steps gained less than this share of a codec's
            bits (at equal distortion), or of a readout's loss. 0: never.
        width: D of neck and head.

    Raises:
        FcbenchError: an unknown field, or a field of another type or out of range.
    """

    task_steps: Positive = 400
    task_batch: Batch = 16
    task_rate: LearningRate = 1e-3
    codec_steps: Positive = 400
    codec_batch: Batch = 16
    codec_rate: LearningRate = 3e-3
    tolerance: Annotated[float, within(0, 1)] = 0.01
    width: Annotated[int, within(1, 4096)] = 128

    def __post_init__(self) -> None:
        obey(self)

    @property
    def of_readout(self) -> tuple[float, ...]:
        """Fields that determine a readout."""
        return self.task_steps, self.task_batch, self.task_rate, self.tolerance, self.width

    @property
    def of_codec(self) -> tuple[float, ...]:
        """Fields that determine a trained codec."""
        return self.codec_steps, self.codec_batch, self.codec_rate, self.tolerance


LEVELS: dict[str, dict[str, Any]] = {
    "demo": {"task_steps": 400, "codec_steps": 400, "tolerance": 0.01},
    "standard": {"task_steps": 2000, "codec_steps": 2000, "tolerance": 0.01},
    "full": {"task_steps": 20_000, "codec_steps": 20_000, "tolerance": 0.01},
}
"""Levels of ``--budget``: to try out, to work with, to quote."""
QUICK = Budget(task_steps=30, codec_steps=20)
"""Budget of ``--quick``: to check that everything works, not to be quoted."""
