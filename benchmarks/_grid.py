"""Single necks, uncoded: effect of the neck's capacity, the head and the neck's loss on both encoders' accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fcbench.analysis.cost import Cost, verdict


def records(found: Sequence[Cost]) -> Iterator[dict[str, Any]]:
    """One record per cell of the grid."""
    for c in found:
        yield {
            "task": c.task,
            "metric": c.metric,
            "neck": c.neck,
            "head": f"frozen, {c.neck_loss}" if c.neck_loss else c.head,
            "seeds": len(c.seeds),
            "general": c.uncoded_general.value,
            "general_low": c.uncoded_general.low,
            "general_high": c.uncoded_general.high,
            "special": c.uncoded_special.value,
            "special_low": c.uncoded_special.low,
            "special_high": c.uncoded_special.high,
            "special_less_general": c.uncoded.value,
            "low": c.uncoded.low,
            "high": c.uncoded.high,
            "verdict": verdict(c.uncoded, c.higher_is_better),
        }
