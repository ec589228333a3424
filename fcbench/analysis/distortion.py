"""Rate and distortion: the error of decoded features as a metric of its own, whatever reads them."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from fcbench.analysis import variants
from fcbench.analysis.situations import POINT, SITUATION
from fcbench.core.codecs import Kind
from fcbench.results.row import OK

METRIC = "feature_snr"
"""Signal-to-noise ratio of features [dB]: their variance over the mean squared error (``feature_mse``)."""
TASK = "distortion"  # In place of a task's name
_READERS = "neck", "head", "head_sha256", "neck_loss"


def values(errors: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The ratio [R] by name, of the errors of samples [N] under weights [R, N]."""
    return {METRIC: -10 * np.log10(weights @ errors / weights.sum(axis=1))}


def add(rows: pd.DataFrame, metrics: Collection[str | None]) -> pd.DataFrame:
    """Add rows with the metric `METRIC`, if it is among the metrics, for every measured point, once for all tasks.

    A codec that was trained for a task has such rows for each: its objective then names the task. Lossless points, with
    an infinite ratio, have none. The samples are those of one of the tasks. `rows`: of
    `fcbench.analysis.situations.load`, or a subset of them.
    """
    if METRIC not in metrics:
        return rows
    errors = rows["feature_mse"].astype(float)
    sent = rows["kind"].isin([Kind.CODED, Kind.REMOTE, Kind.FLOOR])
    made = rows[sent & (rows["status"] == OK) & np.isfinite(errors) & (errors > 0)]
    fitted = ~made["objective"].isin(["", "mse"])
    made = made.assign(
        task=TASK,
        objective=made["objective"].where(~fitted, made["objective"] + ": " + made["task"]),
        metric=METRIC,
        value=-10 * np.log10(made["feature_mse"].astype(float)),
        ci_low=np.nan,
        ci_high=np.nan,
        unit="dB",
        higher_is_better=True,
        primary=False,
        **dict.fromkeys(_READERS, ""),
    )
    made = made.drop_duplicates([*SITUATION, *POINT, *(c for c in (variants.VARIANT, variants.FOLDER) if c in made)])
    return pd.concat([rows, made], ignore_index=True) if len(made) else rows
