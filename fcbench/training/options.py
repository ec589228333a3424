"""How long and how fast readouts and codecs are trained."""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 5
"""Bump when training changes; older cache entries are then ignored."""
PREPARE_SAMPLES = 256
"""Training samples that codecs and adapters take their initial values from."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train. The defaults suit features of the embedded encoders on two CPU cores."""

    task_steps: int = 400
    task_batch: int = 16
    task_rate: float = 1e-3
    codec_steps: int = 150
    codec_batch: int = 16
    codec_rate: float = 5e-4
    width: int = 128  # D of neck and head

    @property
    def of_readout(self) -> tuple[float, ...]:
        """What determines a readout."""
        return self.task_steps, self.task_batch, self.task_rate, self.width

    @property
    def of_codec(self) -> tuple[float, ...]:
        """What determines a trained codec."""
        return self.codec_steps, self.codec_batch, self.codec_rate


QUICK = Budget(task_steps=50, codec_steps=20)
"""``--quick``: to see that all works, not to be quoted."""
