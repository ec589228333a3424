"""Options of a run that takes seconds."""

from __future__ import annotations

TINY = (
    "run --n-train 64 --n-test 8 --task-steps 20 --codec-steps 4 --batch 8 --threads 1 --device cpu --weights random "
    "--no-report"
).split()
TIMES = [
    *("encode_ms", "decode_ms", "peak_mb", "encoder_ms", "neck_ms", "head_ms"),
    *("task_seconds", "codec_seconds", "run", "utc"),
]
"""Columns that depend on when a row was measured."""
