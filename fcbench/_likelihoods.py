"""Log-likelihoods of each sample's target, beside the samples of a point: two further columns of its Parquet file.

`log_likelihood` [N] nats, of the readout on what the point's decoder gave; `null_log_likelihood` [N] nats, of the
null model (see `fcbench.information`), kept with the uncoded ceiling alone. A point without them is a point whose
head states no likelihood, or of a run that wrote none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fcbench import results
from fcbench.types import FcbenchError

COLUMN, NULL_COLUMN = "log_likelihood", "null_log_likelihood"


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Of one point, in order of the sample ids.

    Attributes:
        ids: [N], sorted.
        given: [N] nats.
        null: [N] nats, None where the point keeps none.
    """

    ids: tuple[str, ...]
    given: np.ndarray
    null: np.ndarray | None


def path_of(folder: Path | str, point: str) -> Path:
    """The Parquet file of a point."""
    return Path(folder) / results.SAMPLES / f"{point}.parquet"


def has(folder: Path | str, point: str) -> bool:
    """Whether a point's samples hold likelihoods."""
    file = path_of(folder, point)
    return file.exists() and COLUMN in pq.read_schema(file).names


def load(folder: Path | str, point: str) -> Likelihoods | None:
    """Likelihoods of a point; None where none were written.

    Raises:
        FcbenchError: a damaged file.
    """
    file = path_of(folder, point)
    if not file.exists():
        return None
    try:
        table = pq.read_table(file, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise FcbenchError(
            f"{file} is damaged ({str(error).splitlines()[0]}); delete it and its rows, then run again."
        ) from None
    if COLUMN not in table.column_names:
        return None
    ids = table.column("sample").to_pylist()
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    null = None
    if NULL_COLUMN in table.column_names:
        null = table.column(NULL_COLUMN).to_numpy()[order]
    given = table.column(COLUMN).to_numpy()[order]
    return Likelihoods(tuple(ids[i] for i in order), given, null)


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """Of one operating point with all its seeds: given and null [seeds, N] nats, in order of the sample ids."""

    ids: tuple[str, ...]
    given: np.ndarray
    null: np.ndarray | None


def over_seeds(points: Iterable[tuple[str, str]]) -> OverSeeds | None:
    """Likelihoods of (folder, point) pairs, one a seed; None where one has none or holds other samples."""
    found = [load(folder, point) for folder, point in points]
    whole = [f for f in found if f is not None]
    if len(whole) < len(found) or not whole or len({f.ids for f in whole}) > 1:
        return None
    nulls = [f.null for f in whole if f.null is not None]
    null = np.stack(nulls) if len(nulls) == len(whole) else None
    return OverSeeds(whole[0].ids, np.stack([f.given for f in whole]), null)


def add(
    folder: Path | str, point: str, given: np.ndarray, null: np.ndarray | None = None
) -> None:
    """Write likelihoods [N] beside the samples of a point, in their order; the file is replaced whole.

    Raises:
        FcbenchError: no samples of the point, another number of them, NaN or inf, a disk error.
    """
    file = path_of(folder, point)
    if not file.exists():
        raise FcbenchError(f"no samples of point {point!r} in {folder}; run it first.")
    table = pq.read_table(file, partitioning=None)
    columns = {COLUMN: given} if null is None else {COLUMN: given, NULL_COLUMN: null}
    for name, values in columns.items():
        if np.shape(values) != (table.num_rows,) or not np.isfinite(values).all():
            raise FcbenchError(
                f"got {name} of shape {list(np.shape(values))} for {table.num_rows} samples of point {point!r}; "
                "need one finite number a sample."
            )
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, pa.array(values, pa.float64()))
    part = file.with_name(
        f".{file.name}.tmp"
    )  # left by a killed run, `ResultsFolder` deletes it
    try:
        pq.write_table(table, part, compression="zstd")
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FcbenchError(
            f"cannot write {file}: {error.strerror or error}; free some space, then run again."
        ) from error
