"""Test images as received at each point (``pictures.json`` of a results folder), by encoder and codec."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.core.codecs import OF_A_TASK, Kind
from fcbench.core.errors import FcbenchError
from fcbench.results.folder import PICTURES

UNCODED, NO_BITS = "uncoded", "no bits"


def pictures(rows: pd.DataFrame, folders: Sequence[Path]) -> dict[str, Any]:
    """Pictures of results folders for the page; empty if there are none.

    Args:
        rows: with ``encoder_label`` and ``codec_label``; points without a row are left out.

    Returns:
        ``images``: by sample id, the address of its picture; ``stops``, from no bits to uncoded: each a point with
        ``encoder``, ``codec`` (empty at the ends of a curve), ``name``, ``bpp``, the primary ``values`` by task, and
        ``samples``, as in the file.
    """
    primary = rows[rows["primary"]].drop_duplicates("point").set_index("point")
    images: dict[str, str] = {}
    stops: list[dict[str, Any]] = []
    for file in (folder / PICTURES for folder in folders if (folder / PICTURES).exists()):
        try:
            content = json.loads(file.read_bytes())
            images |= content["images"]
            stops += _stops(content["points"], primary)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise FcbenchError(f"{file} is damaged ({type(error).__name__}: {error}); delete it.") from None
    order = {NO_BITS: -math.inf, UNCODED: math.inf}
    return {"images": images, "stops": sorted(stops, key=lambda s: order.get(s["name"], s["bpp"] or 0.0))}


def _stops(points: Sequence[dict[str, Any]], primary: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for point in points:
        of_task = {task: primary.loc[key] for task, key in point["keys"].items() if key in primary.index}
        if not of_task:
            continue
        row = next(iter(of_task.values()))
        is_end = row["kind"] in (Kind.CEILING, Kind.FLOOR)
        of_tasks = f" ({', '.join(of_task)})" if row["objective"] in OF_A_TASK else ""
        yield {
            "encoder": row["encoder_label"],
            "codec": "" if is_end else row["codec_label"] + of_tasks,
            "name": {Kind.CEILING: UNCODED, Kind.FLOOR: NO_BITS}.get(row["kind"], row["params"]),
            "bpp": float(row["bpp"]) if pd.notna(row["bpp"]) else None,
            "values": {task: f"{r['metric']} {r['value']:.3f}" for task, r in of_task.items()},
            "samples": point["samples"],
        }
