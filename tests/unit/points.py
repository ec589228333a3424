"""Rate points for tests: valid rows of which a test states only what it is about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from fcbench.analysis.estimate import Estimate
from fcbench.results.row import SCHEMA, RatePoint
from fcbench.results.table import COLUMNS

_DEFAULTS: dict[str, Any] = {
    "schema": SCHEMA,
    "point": "p0",
    "status": "ok",
    "suite": "test",
    "kind": "coded",
    "dataset": "scenes",
    "dataset_revision": "r1",
    "image_size": "128x128",
    "encoder": "hiera_nano",
    "weights_sha256": "00",
    "weights_origin": "embedded",
    "split": "stage3",
    "codec": "hyperprior",
    "params": '{"lmbda": 0.1}',
    "objective": "mse",
    "neck": "neck_2L",
    "head": "trained",
    "head_sha256": "",
    "neck_loss": "",
    "task": "segmentation",
    "seed": 0,
    "n_train": 64,
    "width": 128,
    "task_steps": 400,
    "task_batch": 16,
    "task_rate": 1e-3,
    "task_stop": "plateau",
    "task_done": 320,
    "task_seconds": 12.5,
    "task_gain": 0.4,
    "task_rest": 1.1,
    "codec_steps": 150,
    "codec_batch": 16,
    "codec_rate": 5e-4,
    "codec_stop": "plateau",
    "codec_done": 134,
    "codec_seconds": 4.5,
    "codec_gain": 0.9,
    "codec_rest": 2.1,
    "tolerance": 0.01,
    "n_samples": 4,
    "n_px": 65536,
    "n_points": 1000,
    "n_bytes": 800,
    "bpp": 0.1,
    "bpfp": 6.4,
    "bytes_per_sample": 200.0,
    "bpp_content": 0.09,
    "parts": '{"z": 20, "y": 700, "container": 80}',
    "bpp_estimated": 0.09,
    "rate_alarm": False,
    "metric": "miou",
    "value": 0.4,
    "ci_low": 0.3,
    "ci_high": 0.5,
    "unit": "",
    "protocol": "",
    "higher_is_better": True,
    "primary": True,
    "feature_mse": 0.2,
    "encode_ms": 1.5,
    "decode_ms": 2.5,
    "peak_mb": 4.0,
    "encoder_ms": 12.0,
    "neck_ms": 1.0,
    "head_ms": 0.5,
    "kmac_per_px": '{"encoder": 9.0, "encode": 0.5, "decode": 0.4, "neck": 1.0, "head": 2.0}',
    "n_params": '{"encoder": 2000000, "codec": 50000, "neck": 400000, "head": 90000}',
    "checkpoint_sha256": "11",
    "checkpoint_bytes": 200000,
    "versions": "{}",
    "device": "cpu",
    "gpu": "",
    "cpu": "Processor",
    "threads": 1,
    "run": "",
    "commit": "abc",
    "utc": "2025-01-31T12:00:00Z",
}


def rate_point(**changes: Any) -> RatePoint:
    """A measured point with the fields given changed."""
    return RatePoint(**{**_DEFAULTS, **changes})


def sweep(n: int = 5, key: str = "", **changes: Any) -> list[RatePoint]:
    """A curve of n points, rate doubling, value rising."""
    return [
        rate_point(
            point=f"{key}{i}",
            params=json.dumps({"q": i}),
            bpp=0.05 * 2**i,
            bpfp=0.2 * 2**i,
            bytes_per_sample=100.0 * 2**i,
            bpp_content=0.045 * 2**i,
            **{"value": 0.2 + 0.05 * i, "ci_low": 0.15, "ci_high": 0.5, **changes},
        )
        for i in range(n)
    ]


def end(kind: str, value: float, **changes: Any) -> RatePoint:
    """A ceiling or a floor: no codec, no rate."""
    none = dict.fromkeys(("n_bytes", "bpp", "bpfp", "bytes_per_sample", "bpp_content"), None)
    return rate_point(**{"parts": "", "kind": kind, "codec": "", "value": value, "point": kind, **none, **changes})


def numbers(found: Estimate) -> tuple[float, float, float]:
    """Value, low and high of an estimate that has all three."""
    assert found.value is not None and found.low is not None and found.high is not None
    return found.value, found.low, found.high


def to_frame(points: Sequence[RatePoint]) -> pd.DataFrame:
    """Rate points as the table that `fcbench.results.table.load` gives."""
    return pd.DataFrame([asdict(p) for p in points], columns=list(COLUMNS), dtype=object).astype(COLUMNS)
