"""What specialization costs, as a table: one number per row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from fcbench.analysis.cost import Costs
from fcbench.analysis.estimate import Estimate

COLUMNS = (
    "dataset task neck head general special encoder codec params "
    "n_samples sent_bits figure unit value low high reason doubt"
).split()


def frame(found: Costs) -> pd.DataFrame:
    """One number per row: which, its unit, value, interval, or the reason why there is none."""
    records = [*_cost_records(found), *_kept_records(found)]
    table = pd.DataFrame(records, columns=COLUMNS).astype({"n_samples": "Int64"})
    return table.fillna(
        {"general": "", "special": "", "encoder": "", "codec": "", "params": "", "unit": "", "doubt": ""}
    )


def _cost_records(found: Costs) -> Iterator[dict[str, Any]]:
    for c in found.costs:
        about = {k: getattr(c, k) for k in ("dataset", "task", "neck", "head", "general", "special", "n_samples")}
        for name, unit, number in (
            ("uncoded_general", c.metric, c.uncoded_general),
            ("uncoded_special", c.metric, c.uncoded_special),
            ("uncoded_difference", c.metric, c.uncoded),
            ("information_general", "bit/sample", c.information_general),
            ("information_special", "bit/sample", c.information_special),
            ("information_difference", "bit/sample", c.information),
        ):
            yield about | {"figure": name, "unit": unit} | asdict(number)
        for k in c.coded:
            own = about | {"codec": k.codec, "doubt": k.doubt}
            yield own | {"figure": "extra_rate_at_equal_accuracy", "unit": "percent"} | asdict(k.extra_rate_percent)
            yield own | {"figure": "accuracy_at_equal_rate", "unit": c.metric} | asdict(k.accuracy_at_equal_rate)


def _kept_records(found: Costs) -> Iterator[dict[str, Any]]:
    for k in found.efficiency:
        about = {c: getattr(k, c) for c in ("dataset", "task", "neck", "head", "encoder", "codec", "params")}
        about["sent_bits"] = k.sent
        yield about | {"figure": "information_kept", "unit": "bit/sample"} | asdict(k.kept)
        yield about | {"figure": "share_kept"} | asdict(k.share)
        yield about | {"figure": "kept_per_bit_sent"} | asdict(Estimate(k.per_bit))
