"""Verification of a results folder: rows that add up, and the samples and streams behind them."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fcbench.analysis.situations import metric_values_of
from fcbench.core.cache import digest
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.results import table
from fcbench.results.folder import PROVENANCE, load_provenance
from fcbench.results.row import OK
from fcbench.results.samples import has_samples, load_samples

STREAMS = "streams"
TOLERANCE = 1e-6  # Relative difference between a row's value or rate and its recomputation


def verify(folder: Path) -> list[str]:
    """Faults of a results folder, one line each; empty if there are none. Raises `FcbenchError`: `rates.csv` is
    missing, damaged or of an unreadable schema."""
    rows = table.load(folder)
    if rows.empty:
        raise FcbenchError(f"no rows in {folder}; run `fcbench run` first.")
    ok = rows[rows["status"] == OK]
    faults = [
        f"point {p}: failed: {s}" for p, s in rows[rows["status"] != OK].groupby("point")["status"].first().items()
    ]
    return [*faults, *_provenance(folder, rows), *_rates(ok), *_samples(folder, ok), *_streams(folder, ok)]


def _provenance(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    runs = {r.get("run") for r in load_provenance(folder)} if (folder / PROVENANCE).exists() else set()
    for run in sorted(set(rows["run"]) - runs):
        n = rows.loc[rows["run"] == run, "point"].nunique()
        yield f"{n} points are of run {run!r}, which {PROVENANCE} does not hold" if run else f"{n} points name no run"
    for what, unknown in (
        ("no commit", rows["commit"] == ""),
        ("a package that differed from its commit", rows["commit"].str.endswith("-dirty")),
        ("no sha256 of the encoder's weights", rows["weights_sha256"] == ""),
    ):
        if unknown.any():
            yield f"{rows.loc[unknown, 'point'].nunique()} points name {what}"


def _rates(ok: pd.DataFrame) -> Iterator[str]:
    """Faults: rates that do not match the size of the file, missing values, or values outside their interval."""
    bits = 8 * ok["n_bytes"].astype(float)
    for column, n in (("bpp", ok["n_px"]), ("bpfp", ok["n_points"]), ("bytes_per_sample", 8 * ok["n_samples"])):
        wrong = ok["n_bytes"].notna() & ~np.isclose(ok[column], bits / n, rtol=TOLERANCE)
        for row in ok[wrong].drop_duplicates("point").itertuples():
            yield f"point {row.point}: {column} is {getattr(row, column):.6g}: its {row.n_bytes} bytes give another"
    for row in ok[ok["parts"] != ""].drop_duplicates("point").itertuples():
        if (found := sum(json.loads(str(row.parts)).values())) != row.n_bytes:
            yield f"point {row.point}: its parts are {found} bytes, but its file has {row.n_bytes}"
    outside = (ok["value"] < ok["ci_low"] - TOLERANCE) | (ok["value"] > ok["ci_high"] + TOLERANCE)
    for row in ok[outside | ~np.isfinite(ok["value"])].itertuples():
        yield f"point {row.point}: {row.metric} is {row.value}, outside its interval [{row.ci_low}, {row.ci_high}]"


def _samples(folder: Path, ok: pd.DataFrame) -> Iterator[str]:
    for (point, task), own in ok.groupby(["point", "task"], sort=False):
        if not has_samples(folder, str(point)):
            yield f"point {point}: no samples"
            continue
        samples, values_of = load_samples(folder, str(point)), metric_values_of(str(task))
        if len(samples.ids) != own["n_samples"].iloc[0]:
            yield f"point {point}: {len(samples.ids)} samples, but its rows say {own['n_samples'].iloc[0]}"
        if values_of is None:
            yield f"point {point}: no plug-in {task!r} here to compute its values"
            continue
        found = values_of(samples.stats, np.ones((1, len(samples.stats))))
        for metric, value in zip(own["metric"], own["value"]):
            again = float(found[metric][0]) if metric in found else float("nan")
            if not np.isclose(again, value, rtol=TOLERANCE):
                yield f"point {point}: {metric} is {value:.6g}, but its samples give {again:.6g}"


def _streams(folder: Path, ok: pd.DataFrame) -> Iterator[str]:
    sent = ok[ok["kind"].isin([Kind.CODED, Kind.REMOTE, Kind.LABEL])].drop_duplicates("point")
    row_of = {digest({"job": row.point}): row for row in sent.itertuples()}
    for file in sorted((folder / STREAMS).glob("*.fcb")):
        row = row_of.get(file.stem)
        if row is None:
            yield f"{file}: belongs to no row"
            continue
        if file.stat().st_size != row.n_bytes:
            yield f"{file}: {file.stat().st_size} bytes, but point {row.point} says {row.n_bytes}"
        for checkpoint in file.parent.glob(f"{file.stem}.safetensors"):
            if hashlib.sha256(checkpoint.read_bytes()).hexdigest() != row.checkpoint_sha256:
                yield f"{checkpoint}: not the checkpoint of point {row.point}"
