"""`measure`: the one function where all rooms meet.

data -> encoder -> features on disk -> codec -> .fcb file -> decoder -> neck and head -> statistics -> row
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fcbench.core.cache import digest
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.core.kinds import CODED
from fcbench.core.progress import Report
from fcbench.core.registry import build_encoder
from fcbench.core.samples import Dataset
from fcbench.measure.bench import Bench
from fcbench.measure.coding import code
from fcbench.measure.evaluate import evaluate, null, reader, wants_null
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import failed_row, key, measured_rows
from fcbench.measure.study import open_data
from fcbench.measure.suite import Suite
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import OK
from fcbench.results.samples import SampleTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to: points measured now or found done, coded ones in the folder, what failed."""

    n_measured: int
    n_found: int
    n_coded: int
    failures: tuple[str, ...]


def measure(
    suite: Suite,
    out: Path,
    cache_dir: Path,
    device: torch.device,
    *,
    keep_streams: bool = False,
    data: Mapping[str, Dataset] | None = None,
) -> Summary:
    """Measure every point of a suite that its results folder lacks.

    Args:
        data: both splits, where they are open already.

    Raises:
        FcbenchError: bad input, or a folder that cannot be used. A point that fails is a row with its reason.
    """
    suite.check()
    failures: list[str] = []
    n_measured = n_found = 0
    with ResultsFolder(out) as folder, Report(_n_stages(suite)) as report:
        folder.add_provenance(suite.described())
        data = data or open_data(suite, cache_dir)
        for name in suite.encoders:
            encoder = build_encoder(name, suite.weights, device)
            for seed in suite.seeds:
                bench = Bench(suite, data, encoder, seed, cache_dir, device, report)
                for job in jobs(suite):
                    pending = [t for t in job.tasks if not folder.done(key(bench, job, t))]
                    n_found += len(job.tasks) - len(pending)
                    if not pending:
                        report.skip(1)
                        continue
                    failed = _measure_job(bench, job, pending, folder, keep_streams)
                    failures += failed
                    n_measured += 0 if failed else len(pending)
        coded = {row.point for row in folder.points if row.kind == CODED and row.status == OK}
    return Summary(n_measured, n_found, len(coded), tuple(failures))


def _n_stages(suite: Suite) -> int:
    """Stages that a run from nothing reports: features, readouts, codecs, points."""
    readouts = len(suite.tasks) * (1 if suite.head == "trained" else 2)
    each = 2 + readouts * (2 if suite.null_model else 1) + len(jobs(suite))
    return len(suite.encoders) * len(suite.seeds) * each


# ------------------------------------------------------------------------------------------ one point
def _measure_job(bench: Bench, job: Job, tasks: Sequence[str], folder: ResultsFolder, keep: bool) -> list[str]:
    """Measure a job for some tasks and append the rows. Returns what failed."""
    where = f"{bench.encoder.name}: {job.point.label}"
    try:
        readers = {t: reader(bench, t) for t in tasks}
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=".streams-", dir=folder.path) as temporary:
            stream = Path(temporary) / f"{digest({'job': key(bench, job, tasks[0])})}.fcb"
            coding = code(bench, job, stream)
            with bench.report.part(f"{where}, measuring"):
                found, mse = evaluate(bench, readers, coding.decoded)
            if keep and stream.exists():
                _keep(stream, coding.checkpoint, folder.path / "streams")
        nulls = {t: null(bench, t) for t in tasks if wants_null(bench, job, found[t])}
    except (FcbenchError, RuntimeError, ArithmeticError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        bench.report.say(f"FAILED {where}: {reason}")
        log.debug("failed point", exc_info=error)
        for task in tasks:
            folder.append([failed_row(bench, job, task, reason)], None)
        return [f"{where}: {reason}"]
    said = []
    for task in tasks:
        stats, given = found[task].stats, found[task].log_likelihood
        rows = measured_rows(bench, job, task, coding, stats, mse)
        ids, n_bytes = bench.test.store.ids, coding.sample_bytes
        folder.append(rows, SampleTable(ids, n_bytes, stats, given, nulls.get(task)))
        said.append(f"{rows[0].metric} {rows[0].value:.3f}")
    bench.report.finish(f"{where}: {rows[0].bpp:.4g} bpp, {', '.join(said)}", time.monotonic() - began)
    return []


def _keep(stream: Path, checkpoint: Path | None, folder: Path) -> None:
    """Move a file to where it stays, its codec's checkpoint beside it."""
    folder.mkdir(exist_ok=True)
    if checkpoint is not None:
        beside = folder / stream.with_suffix(checkpoint.suffix).name
        write_atomically(beside, checkpoint.read_bytes())
    stream.replace(folder / stream.name)
