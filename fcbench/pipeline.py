"""`measure`: the one function where all rooms meet.

data -> encoder -> features on disk -> codec -> .fcb file -> decoder -> neck and head -> statistics -> row
"""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcbench import bitstream, curves, fit, rate, registry, results
from fcbench.bench import Bench, digest, open_data
from fcbench.codecs import _checkpoint
from fcbench.progress import Report
from fcbench.results import ResultsFolder, SampleTable
from fcbench.suite import Suite
from fcbench.types import (
    Encoder,
    FcbenchError,
    Features,
    MetricSpec,
    OperatingPoint,
    RatePoint,
    Task,
)

VERSION = 1
"""Of how a point is measured: raise it when that changes, and a resumed run measures anew."""
EVAL_BATCH = 32
CEILING, FLOOR, CODED = "ceiling", "floor", "coded"
ENDS = {CEILING: OperatingPoint("uncoded"), FLOOR: OperatingPoint("mean")}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One operating point and the tasks that read it."""

    kind: str
    point: OperatingPoint
    tasks: tuple[str, ...]
    fitted_to: str | None = None  # the task whose loss trained the codec


@dataclass(frozen=True, slots=True)
class Coding:
    """What coding the test set came to, and the decoded features' way to the tasks."""

    n_bytes: int | None
    sample_bytes: Sequence[int | None]
    estimated_bits: float | None
    checkpoint_sha256: str
    encode_ms: float | None
    decoded: Iterator[dict[str, Tensor]]  # batches of EVAL_BATCH
    decode_ms: list[float] = field(default_factory=list)


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
) -> Summary:
    """Measure every point of a suite that its results folder lacks.

    Raises:
        FcbenchError: bad input, or a folder that cannot be used. A point that fails is a row with its reason.
    """
    suite.check()
    failures: list[str] = []
    n_measured = n_found = 0
    with ResultsFolder(out) as folder, Report(_n_stages(suite)) as report:
        folder.add_provenance(suite.described())
        data = open_data(suite, cache_dir)
        for name in suite.encoders:
            encoder = build_encoder(name, suite.weights, device)
            for seed in suite.seeds:
                bench = Bench(suite, data, encoder, seed, cache_dir, device, report)
                for job in jobs(suite):
                    pending = [
                        t for t in job.tasks if not folder.done(key(bench, job, t))
                    ]
                    n_found += len(job.tasks) - len(pending)
                    if not pending:
                        report.skip(1)
                        continue
                    failed = _measure_job(bench, job, pending, folder, keep_streams)
                    failures += failed
                    n_measured += 0 if failed else len(pending)
        coded = {
            row.point
            for row in folder.points
            if row.kind == CODED and row.status == results.OK
        }
    return Summary(n_measured, n_found, len(coded), tuple(failures))


def build_encoder(name: str, weights: str | None, device: torch.device) -> Encoder:
    """The encoder of ``NAME`` or ``NAME:VARIANT``."""
    family, _, variant = name.partition(":")
    encoder: Encoder = registry.get("encoder", family).build(variant, weights, device)
    return encoder


def jobs(suite: Suite) -> list[Job]:
    """Operating points of a suite for one encoder and seed, the ends of the curves first."""
    out = [Job(kind, point, suite.tasks) for kind, point in ENDS.items()]
    for codec in suite.codecs:
        plugin = registry.get("codec", codec)
        for params in suite.params.get(codec) or plugin.sweep(suite.objective):
            point = OperatingPoint(codec, dict(params))
            if suite.objective == "task" and plugin.trained:
                out += [
                    Job(CODED, point, (task,), fitted_to=task) for task in suite.tasks
                ]
            else:
                out.append(Job(CODED, point, suite.tasks))
    return out


def _n_stages(suite: Suite) -> int:
    """Stages that a run from nothing reports: features, task models, codecs, points."""
    return (
        len(suite.encoders)
        * len(suite.seeds)
        * (2 + len(suite.tasks) + len(jobs(suite)))
    )


def key(bench: Bench, job: Job, task: str) -> str:
    """Key of resumption: a hash of all that determines a point."""
    suite = bench.suite
    described = suite.described()
    for name in (
        "name",
        "encoders",
        "codecs",
        "tasks",
        "params",
        "seeds",
    ):  # what else the run measured
        described.pop(name)
    described |= {
        "version": VERSION, "encoder": bench.encoder.name, "sha256": bench.encoder.weights.sha256,
        "kind": job.kind, "point": job.point.label, "task": task, "fitted_to": job.fitted_to, "seed": bench.seed,
        "revision": bench.revision,
    }  # fmt: skip
    return digest(described)


# ------------------------------------------------------------------------------------------ one point
def _measure_job(
    bench: Bench, job: Job, tasks: Sequence[str], folder: ResultsFolder, keep: bool
) -> list[str]:
    """Measure a job for some tasks and append the rows. Returns what failed."""
    where = f"{bench.encoder.name}: {job.point.label}"
    try:
        models = {t: bench.task_model(t) for t in tasks}
        began = time.monotonic()
        with tempfile.TemporaryDirectory(
            prefix=".streams-", dir=folder.path
        ) as temporary:
            stream = (
                Path(temporary) / f"{digest({'job': key(bench, job, tasks[0])})}.fcb"
            )
            coding = _code(bench, job, stream)
            with bench.report.part(f"{where}, measuring"):
                stats, mse = evaluate(bench, models, coding.decoded)
            if keep and job.kind == CODED:
                (folder.path / "streams").mkdir(exist_ok=True)
                stream.replace(folder.path / "streams" / stream.name)
    except (FcbenchError, RuntimeError, ArithmeticError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        bench.report.say(f"FAILED {where}: {reason}")
        log.debug("failed point", exc_info=error)
        for task in tasks:
            folder.append(_rows(bench, job, task, None, None, None, reason), None)
        return [f"{where}: {reason}"]
    said = []
    for task in tasks:
        rows = _rows(bench, job, task, coding, stats[task], mse, results.OK)
        folder.append(
            rows, SampleTable(bench.test.store.ids, coding.sample_bytes, stats[task])
        )
        said.append(f"{rows[0].metric} {rows[0].value:.3f}")
    bench.report.finish(
        f"{where}: {rows[0].bpp:.4g} bpp, {', '.join(said)}", time.monotonic() - began
    )
    return []


def _code(bench: Bench, job: Job, path: Path) -> Coding:
    """Code the test set into a file; the batches decoded from it are made as they are asked for."""
    store = bench.test.store
    batches = [
        range(i, min(i + EVAL_BATCH, len(store)))
        for i in range(0, len(store), EVAL_BATCH)
    ]
    if job.kind == CEILING:
        n_bytes = rate.uncoded_bytes(store.n_points, 32)
        each = n_bytes // len(store)
        return Coding(
            n_bytes,
            [each] * len(store),
            None,
            "",
            None,
            (store.batch(b) for b in batches),
        )
    if job.kind == FLOOR:
        mean = {n: s.mean.view(1, -1, 1, 1) for n, s in bench.stats.items()}
        shapes = store.shapes
        flat = (
            {n: m.expand(len(b), -1, *shapes[n]) for n, m in mean.items()}
            for b in batches
        )
        return Coding(0, [0] * len(store), None, "", None, flat)
    checkpoint = bench.codec(job.point, job.fitted_to)
    with bench.report.part(
        f"{bench.encoder.name}: {job.point.label}, coding"
    ) as advance:
        sizes, bits, encode_ms, sha256 = encode(bench, checkpoint, path, advance)
    decode_ms: list[float] = []
    decoded = decode(checkpoint, path, decode_ms)
    return Coding(
        path.stat().st_size, sizes, bits, sha256, encode_ms, decoded, decode_ms
    )


def encode(
    bench: Bench, checkpoint: Path, path: Path, advance: Callable[[int, int], None]
) -> tuple[list[int], float, float, str]:
    """Code the test set. Returns record sizes [bytes], estimated bits, median time [ms], checkpoint's sha256."""
    loaded, store = _checkpoint.load(checkpoint), bench.test.store
    sizes, times, bits = [], [], 0.0
    header = bitstream.Header(loaded.point.codec, loaded.sha256, loaded.specs)
    with bitstream.Writer(path, header) as writer, torch.inference_mode():
        for i in range(len(store)):
            features = store.maps(i)
            began = time.perf_counter()
            stream = loaded.codec.encode(features)
            times.append((time.perf_counter() - began) * 1e3)
            writer.append(stream, features.shapes)
            sizes.append(len(stream.payload))
            bits += float(loaded.codec.forward(features.maps)[1].sum())
            advance(i + 1, len(store))
    return sizes, bits, float(np.median(times[1:] or times)), loaded.sha256


def decode(
    checkpoint: Path, path: Path, times_ms: list[float]
) -> Iterator[dict[str, Tensor]]:
    """Batches of features from a file and a checkpoint alone, by a codec of their own."""
    loaded, waiting = _checkpoint.load(checkpoint), list[Features]()
    reader = bitstream.Reader(path)
    reader.verify_checkpoint(loaded.sha256)
    for number, record in enumerate(reader, 1):
        began = time.perf_counter()
        decoded = loaded.codec.decode(record.payload, record.shapes)
        times_ms.append((time.perf_counter() - began) * 1e3)
        record.verify(decoded)
        waiting.append(decoded.features)
        if len(waiting) == EVAL_BATCH or number == len(reader):
            yield {
                name: torch.cat([f.maps[name] for f in waiting])
                for name in waiting[0].maps
            }
            waiting.clear()


def evaluate(
    bench: Bench,
    models: Mapping[str, tuple[Task, fit.TaskModel]],
    batches: Iterator[dict[str, Tensor]],
) -> tuple[dict[str, np.ndarray], float]:
    """Statistics [N, S] of each task on decoded features, and their mean squared error."""
    store, found, error, at = (
        bench.test.store,
        {t: list[np.ndarray]() for t in models},
        0.0,
        0,
    )
    with torch.inference_mode():
        for maps in batches:
            places = range(at, at + len(next(iter(maps.values()))))
            at = places.stop
            error += float(
                fit.normalized_mse(store.batch(places), maps, bench.stats)
            ) * len(places)
            for name, (task, model) in models.items():
                batch = task.collate(bench.targets("test", name)(places))
                found[name].append(task.statistics(model.head, model(maps), batch))
    if at != len(store):
        raise FcbenchError(
            f"decoded {at} samples of {len(store)}: the stream is not of this data set"
        )
    return {name: np.concatenate(rows) for name, rows in found.items()}, error / at


# ---------------------------------------------------------------------------------------------- rows
def _rows(
    bench: Bench,
    job: Job,
    name: str,
    coding: Coding | None,
    stats: np.ndarray | None,
    mse: float | None,
    status: str,
) -> list[RatePoint]:
    """Rows of a point, one a metric; of a failed one, one row with the reason."""
    if coding is None or stats is None:
        return [
            _row(
                bench,
                job,
                name,
                MetricSpec("", True),
                None,
                (None, None),
                None,
                None,
                status,
                primary=True,
            )
        ]
    task = bench.task_model(name)[0]
    values = task.values(stats.sum(0))
    out = []
    for i, metric in enumerate(task.metrics):
        resampled = curves.bootstrap(stats, lambda sums, m=metric.name: task.values(sums)[m])  # type: ignore[misc]
        value = float(values[metric.name])
        out.append(
            _row(
                bench,
                job,
                name,
                metric,
                value,
                resampled,
                coding,
                mse,
                status,
                primary=i == 0,
            )
        )
    return out


def _row(
    bench: Bench,
    job: Job,
    task: str,
    metric: MetricSpec,
    value: float | None,
    interval: tuple[float | None, float | None],
    coding: Coding | None,
    mse: float | None,
    status: str,
    *,
    primary: bool,
) -> RatePoint:
    suite, encoder, store = bench.suite, bench.encoder, bench.test.store
    n_bytes = coding.n_bytes if coding else None
    bits = coding.estimated_bits if coding else None
    alarm = None
    if n_bytes is not None and bits is not None:
        alarm = rate.rate_alarm(n_bytes, bits, len(store))
        if alarm and primary:
            log.warning(
                "%s %s: coded %d B, estimated %.0f B",
                encoder.name,
                job.point.label,
                n_bytes,
                bits / 8,
            )
    return RatePoint(
        schema=results.SCHEMA,
        point=key(bench, job, task),
        status=status,
        suite=suite.name,
        kind=job.kind,
        dataset=suite.dataset,
        dataset_revision=bench.revision,
        image_size="x".join(map(str, store.image_px)),
        encoder=encoder.name,
        weights_sha256=encoder.weights.sha256,
        weights_origin=encoder.weights.origin,
        split=bench.split_point,
        codec=job.point.codec,
        params=json.dumps(dict(job.point.params)),
        objective=("task" if job.fitted_to else "mse") if job.kind == CODED else "",
        neck=suite.neck,
        head=suite.head,
        task=task,
        seed=bench.seed,
        n_samples=len(store),
        n_px=store.n_px,
        n_points=store.n_points,
        n_bytes=n_bytes,
        bpp=None if n_bytes is None else rate.bpp(n_bytes, store.n_px),
        bpfp=None if n_bytes is None else rate.bpfp(n_bytes, store.n_points),
        bytes_per_sample=(
            None if n_bytes is None else rate.bytes_per_sample(n_bytes, len(store))
        ),
        bpp_estimated=None if bits is None else rate.bpp_estimated(bits, store.n_px),
        rate_alarm=alarm,
        metric=metric.name,
        value=value,
        ci_low=interval[0],
        ci_high=interval[1],
        higher_is_better=metric.higher_is_better,
        primary=primary,
        feature_mse=mse,
        encode_ms=coding.encode_ms if coding else None,
        decode_ms=(
            float(np.median(coding.decode_ms)) if coding and coding.decode_ms else None
        ),
        checkpoint_sha256=coding.checkpoint_sha256 if coding else "",
        versions=json.dumps(results.versions()),
        device=str(bench.device),
        commit=commit(),
        utc=results.utc_now(),
    )


@cache
def commit() -> str:
    """Git commit of the package's checkout, with ``-dirty`` where files differ; empty outside a checkout."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *args],
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + (
            "-dirty"
            if head and git("status", "--porcelain", "--untracked-files=no")
            else ""
        )
    except OSError:  # no git on this machine
        return ""
