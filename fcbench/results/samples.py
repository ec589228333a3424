"""Per-sample statistics of a point: writing and reading."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.results.table import HINT, RATES

SAMPLES = "samples.parquet"  # Folder with a file per point
PACKED = "samples.zstd.parquet"  # One file with all points: what is committed in place of the folder
TOGETHER = 8  # Points in a row group of it: fewer cost bytes (one each: a fifth more), more cost time to read one
OPTIONAL = "log_likelihood", "null_log_likelihood", "feature_error"  # Columns of `SampleTable` that not every point has


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Samples of a point."""

    ids: Sequence[str]  # [N]
    n_bytes: Sequence[int | None]  # [N] size of each sample's payload [bytes]; None if nothing was coded
    stats: np.ndarray  # [N, S] float64 additive statistics of the task
    # [N] nats, of the target, by the head on decoded features; None if the head states no likelihood
    log_likelihood: np.ndarray | None = None
    null_log_likelihood: np.ndarray | None = None  # [N] nats, of the null model; None except at the uncoded ceiling
    # [N] mean squared error of the features in units of their training variance; None where they arrive unchanged
    feature_error: np.ndarray | None = None


def sample_files(path: Path) -> dict[str, Path]:
    """Files of the samples of a folder, by point: the point's own, or the packed one. Raises `FcbenchError`: the
    packed one is damaged."""
    packed = path / PACKED
    files = dict.fromkeys(_groups(packed), packed) if packed.exists() else {}
    return files | {file.stem: file for file in sorted((path / SAMPLES).glob("*.parquet"))}


def has_samples(path: Path, point: str) -> bool:
    """Whether samples of a point are stored, in their own file or packed."""
    unpacked, packed = path / SAMPLES / f"{point}.parquet", path / PACKED
    return unpacked.exists() or (packed.exists() and point in _groups(packed))


def _groups(packed: Path) -> dict[str, list[int]]:
    """The row groups of each point in a packed file."""
    with _naming(packed):
        stat = packed.stat()
        return _groups_of(packed, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=8)
def _groups_of(packed: Path, *version: int) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    with pq.ParquetFile(packed) as file:
        for number in range(file.num_row_groups):
            for point in file.read_row_group(number, ["point"]).column("point").unique().to_pylist():
                groups.setdefault(point, []).append(number)
    return groups


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turn whatever a damaged file gives rise to into one line."""
    try:
        yield
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FcbenchError(
            f"{file} is damaged ({reason}); delete it and its rows in {RATES}, then run again."
        ) from None


def pack(path: Path) -> Path:
    """Write the samples of all points of a folder into one file, those that it holds already too. Returns the file.
    Raises `FcbenchError`: no samples, or the disk is full."""
    tables = [sample_table(point, load_samples(path, point)) for point in sorted(sample_files(path))]
    if not tables:
        raise FcbenchError(f"no samples in {path / SAMPLES}: run the suite again.")
    whole = pa.concat_tables(tables, promote_options="default")
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, whole.schema, compression="zstd", compression_level=19) as writer:
        rows = 0
        for i in range(0, len(tables), TOGETHER):
            n = sum(map(len, tables[i : i + TOGETHER]))
            writer.write_table(whole.slice(rows, n), row_group_size=n)
            rows += n
    write_atomically(path / PACKED, buffer.getvalue().to_pybytes())
    return path / PACKED


def write_samples(path: Path, point: str, samples: SampleTable, hint: str = HINT) -> None:
    """Write the samples of a point to a file of its own. Raises `FcbenchError`: samples that do not fit each other, or
    a disk error."""
    buffer = pa.BufferOutputStream()
    pq.write_table(sample_table(point, samples), buffer, compression="zstd")
    write_atomically(path / SAMPLES / f"{point}.parquet", buffer.getvalue().to_pybytes(), hint)


def load_samples(path: Path | str, point: str) -> SampleTable:
    """Samples of one point, in the order they were written. Raises `FcbenchError`: no samples of this point, or a
    damaged file."""
    if not has_samples(Path(path), point):
        raise FcbenchError(
            f"no samples of point {point!r} in {path}: it was not measured there, or its samples were not kept."
        )
    unpacked = Path(path) / SAMPLES / f"{point}.parquet"
    file = unpacked if unpacked.exists() else Path(path) / PACKED
    with _naming(file), pq.ParquetFile(file) as opened:
        table = opened.read() if file == unpacked else opened.read_row_groups(_groups(file)[point])
        table = table.filter(pc.equal(table.column("point"), point))
        if not len(table):
            raise ValueError(f"its samples are of another point than {point}")
        ids, n_bytes = (table.column(c).to_pylist() for c in ("sample", "n_bytes"))
        stats = table.column("stats").combine_chunks().flatten().to_numpy()
        kept = [c for c in OPTIONAL if c in table.schema.names and table.column(c).null_count == 0]
        stated = {c: table.column(c).to_numpy() for c in kept}
        return SampleTable(ids, n_bytes, stats.reshape(len(ids), -1), **stated)


def sample_table(point: str, samples: SampleTable) -> pa.Table:
    """Samples of one point as columns. Raises `FcbenchError`: samples that do not fit each other."""
    stats = np.asarray(samples.stats, dtype=np.float64)
    n = len(samples.ids)
    if n == 0 or stats.ndim != 2 or len(stats) != n or len(samples.n_bytes) != n:
        raise FcbenchError(
            f"got {n} sample ids, {len(samples.n_bytes)} sizes and statistics {list(stats.shape)}; need N, N, [N, S]."
        )
    offsets = np.arange(n + 1, dtype=np.int32) * stats.shape[1]
    columns = {
        "point": pa.array([point] * n, pa.string()),
        "sample": pa.array(list(samples.ids), pa.string()),
        "n_bytes": pa.array(list(samples.n_bytes), pa.int64()),
        "stats": pa.ListArray.from_arrays(pa.array(offsets), stats.ravel()),
    }
    for name in OPTIONAL:
        values = getattr(samples, name)
        if values is None:
            continue
        if np.shape(values) != (n,) or not np.isfinite(values).all():
            raise FcbenchError(
                f"got {name} of shape {list(np.shape(values))} for {n} samples of point {point!r}; "
                "need one finite number per sample."
            )
        columns[name] = pa.array(values, pa.float64())
    return pa.table(columns)
