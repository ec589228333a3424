"""The cost of a run as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fcbench.cli.say import size
from fcbench.core.progress import duration
from fcbench.measure.forecast import N_TEST, STEPS, Rates
from fcbench.measure.plan import Counts, Estimate, estimate

BUSY = 1.5
"""Load per core above which times are unreliable: this process had at most two thirds of a core."""


def table(counts: Counts, rates: Rates) -> str:
    """One line per codec, then the shared work, the total, the disk, and how it was timed."""
    cost = estimate(counts, rates)
    lines = aligned(list(_cells(counts, cost, rates)))
    lines.insert(-1, "-" * len(lines[0]))
    cache_bytes = cost.feature_bytes + cost.model_bytes
    lines += [
        "",
        f"disk: about {size(cache_bytes)} of cache ({size(cost.feature_bytes)} of them features), "
        f"{size(cost.result_bytes)} of results",
        f"timed just now on {rates.encoder}: {STEPS} steps of each training, {N_TEST} samples of each codec and task",
    ]
    if rates.load is not None and rates.load > BUSY:
        lines.append(
            f"the machine was busy (load {rates.load:.1f} per core): these times may be far off; ask again later"
        )
    lines += [f"{name} could not be timed: {why}" for name, why in rates.failed.items()]
    return "\n".join(lines)


def several(parts: Mapping[str, tuple[Counts, Estimate]]) -> str:
    """One line per suite of several that share their features, then the features, the total, and the disk."""
    costs = [cost for _, cost in parts.values()]
    features_s, feature_bytes = max(c.features_s for c in costs), max(c.feature_bytes for c in costs)
    rows = [("", "points", "done", "at most")]
    for name, (counts, cost) in parts.items():
        took = duration(cost.total_s - cost.features_s)
        rows.append((name, f"{counts.n_points}", f"{counts.n_found}", took))
    total_s = features_s + sum(c.total_s - c.features_s for c in costs)
    rows += [("features", "", "", duration(features_s)), ("total", "", "", duration(total_s))]
    models, results = sum(c.model_bytes for c in costs), sum(c.result_bytes for c in costs)
    disk = f"{size(feature_bytes)} of features, {size(models)} of models, {size(results)} of results"
    return "\n".join([*aligned(rows), "", f"disk: {disk}"])


def _cells(counts: Counts, cost: Estimate, rates: Rates) -> Iterator[tuple[str, ...]]:
    yield "", "points", "done", "to train", "about"
    for f in counts.families.values():
        took = duration(cost.families_s[f.name]) if f.read else ""
        if f.name in rates.failed:
            took = "unknown"
        yield f.name, f"{f.n_points}", f"{f.n_found}", f"{f.trained.total() or ''}", took
    for name, n, took_s in (
        ("readouts (neck and head)", counts.readouts.total(), cost.readouts_s),
        ("null models", counts.nulls.total(), cost.nulls_s),
    ):
        if n:
            yield name, "", "", f"{n}", duration(took_s)
    if n := counts.images.total():
        yield f"features of {n} images", "", "", "", duration(cost.features_s)
    n = counts.n_readouts + counts.n_codecs
    yield "total", f"{counts.n_points}", f"{counts.n_found}", f"{n}", duration(cost.total_s)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as aligned lines: the first column left, the others right."""
    first, *others = (max(map(len, column)) for column in zip(*rows))
    return ["  ".join([r[0].ljust(first), *(c.rjust(w) for c, w in zip(r[1:], others))]) for r in rows]
