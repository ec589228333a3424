"""The row of ``rates.csv``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """One metric of one operating point: a row of ``rates.csv``. A missing value is None, never -1.

    What has a default is known only after measuring.
    """

    schema: int
    point: str  # hash of all that determines the point: the key of resumption
    status: str  # "ok" or the reason of the failure
    suite: str
    kind: str  # a `fcbench.core.kinds.Kind`
    dataset: str
    dataset_revision: str
    image_size: str  # "128x128"
    encoder: str
    weights_sha256: str
    weights_origin: str
    split: str
    codec: str
    params: str  # JSON
    objective: str
    neck: str
    head: str  # "trained" or "frozen:NAME"
    head_sha256: str  # of a frozen decoder's weights
    neck_loss: str  # before a frozen decoder: "task", "distill" or "both"
    task: str
    seed: int
    n_samples: int
    n_px: int  # pixels of the original images
    n_points: int  # scalars at the split point, before padding
    n_bytes: int | None = None  # the .fcb file's size on disk
    bpp: float | None = None
    bpfp: float | None = None
    bytes_per_sample: float | None = None
    bpp_estimated: float | None = None
    rate_alarm: bool | None = None  # coded and estimated differ by more than 3 percent + 16 B per sample
    metric: str = ""
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    unit: str = ""  # of the metric; empty for fractions
    protocol: str = ""  # how the metric was counted, where that is not the only way
    higher_is_better: bool = True
    primary: bool = True
    feature_mse: float | None = None  # of features divided by their training standard deviation
    encode_ms: float | None = None  # median per sample
    decode_ms: float | None = None
    kmac_per_px: str = ""  # JSON: encoder, encode, decode, neck, head; per pixel of the original image
    n_params: str = ""  # JSON: encoder, codec, neck, head
    checkpoint_sha256: str = ""
    checkpoint_bytes: int | None = None
    versions: str  # JSON; with those of the external coders in use
    device: str
    commit: str
    utc: str


SCHEMA = 2
"""Version of the columns of `rates.csv`: goes into `RatePoint.schema`."""

OK = "ok"
"""`RatePoint.status` of a point that was measured."""
