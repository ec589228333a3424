"""Rates by part: the share of each part of a file (column ``parts`` of rates.csv)."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fcbench.analysis import situations
from fcbench.analysis.compare import Comparison
from fcbench.core.errors import FcbenchError
from fcbench.results.row import OK

SHARES = "shares"  # Column: share of each part, by name


class PartsAtTarget(NamedTuple):
    """Parts of a codec's rate at the target of a comparison."""

    of: Comparison
    rates: dict[str, float]  # by part, in the unit of the comparison; they sum to its rate at the target


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of coded points with their parts, each point once, with the column `SHARES`. Raises `FcbenchError`: no row
    has parts."""
    with_parts = rows[(rows["status"] == OK) & (rows["parts"] != "")]
    if with_parts.empty:
        raise FcbenchError("no row says what its file consists of; run the suite again with this version.")
    with_parts = with_parts.assign(
        codec_label=situations.codec_labels(with_parts),
        encoder_label=situations.encoder_labels(with_parts),
        data_label=situations.data_labels(with_parts),
    )
    with_parts = with_parts.drop_duplicates(["codec_label", "encoder_label", "data_label", "task", "params", "seed"])
    return with_parts.assign(**{SHARES: [_share(json.loads(cell)) for cell in with_parts["parts"]]})


def _share(parts: dict[str, int]) -> dict[str, float]:
    total = sum(parts.values())
    return {part: n / total for part, n in parts.items()}


def at_targets(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[PartsAtTarget]:
    """Parts of the rates at the target; shares between two operating points are interpolated over log rate."""
    points = shares(rows)
    out = []
    for c in comparisons:
        rate = c.rate_at_target.value
        curve = points[(points["codec_label"] == c.codec) & (points["task"] == c.task)]
        curve = curve[(curve["encoder_label"] == c.encoder) & (curve["data_label"] == c.dataset)].sort_values(
            c.rate_unit
        )
        if rate is None or curve.empty:
            continue
        names = list(dict.fromkeys(name for one in curve[SHARES] for name in one))
        at = np.log(curve[c.rate_unit].astype(float))
        share = {name: np.interp(np.log(rate), at, [s.get(name, 0.0) for s in curve[SHARES]]) for name in names}
        out.append(PartsAtTarget(c, {name: float(rate * s / sum(share.values())) for name, s in share.items()}))
    return out
