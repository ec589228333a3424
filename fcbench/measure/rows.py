"""Rows: what identifies a point, and what is written of it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np

from fcbench.core import rates, registry
from fcbench.core.cache import digest
from fcbench.core.errors import FcbenchError
from fcbench.core.kinds import CEILING, CODED, ENDS, LABELS, codec_kind
from fcbench.core.registry import coder_versions
from fcbench.measure import complexity
from fcbench.measure.bench import Bench
from fcbench.measure.coding import Coding
from fcbench.measure.points import Job
from fcbench.results import intervals, provenance
from fcbench.results.row import OK, SCHEMA, RatePoint

VERSION = 1
"""Of how a point is measured: raise it when that changes, and a resumed run measures anew."""
log = logging.getLogger(__name__)


def key(bench: Bench, job: Job, task: str) -> str:
    """Key of resumption: a hash of all that determines a point."""
    suite = bench.suite
    described = suite.described()
    for name in ("name", "encoders", "codecs", "tasks", "params", "seeds", "null_model"):  # what else the run measured
        described.pop(name)
    if job.kind == CEILING:
        described["null_model"] = suite.null_model
    described |= {
        "version": VERSION,
        "encoder": bench.encoder.name,
        "sha256": bench.encoder.weights.sha256,
        "kind": job.kind,
        "point": job.point.label,
        "task": task,
        "fitted_to": job.fitted_to,
        "seed": bench.seed,
        "revision": bench.revision,
    }
    if origin := _origin(bench, job, task):
        described["origin"] = origin
    return digest(described)


def failed_row(bench: Bench, job: Job, task: str, reason: str) -> RatePoint:
    """The row of a point that failed."""
    return replace(_unmeasured(bench, job, task), status=reason)


def measured_rows(bench: Bench, job: Job, name: str, coding: Coding, stats: np.ndarray, mse: float) -> list[RatePoint]:
    """Rows of a point, one a metric, of its task's statistics [N, S]."""
    task = bench.readout(name)[0]
    coded = _coded(bench, job, _unmeasured(bench, job, name), coding)
    values = task.values(stats.sum(0))
    out = []
    for i, metric in enumerate(task.metrics):
        low, high = intervals.bootstrap(stats, lambda sums, m=metric.name: task.values(sums)[m])  # type: ignore[misc]
        out.append(
            replace(
                coded,
                metric=metric.name,
                value=float(values[metric.name]),
                ci_low=low,
                ci_high=high,
                unit=metric.unit,
                protocol=metric.protocol,
                higher_is_better=metric.higher_is_better,
                primary=i == 0,
                feature_mse=mse,
            )
        )
    return out


def _coded(bench: Bench, job: Job, row: RatePoint, coding: Coding) -> RatePoint:
    """A row with its rate: every division is `fcbench.core.rates`'s."""
    n_bytes, bits, n = coding.n_bytes, coding.estimated_bits, row.n_samples
    alarm = None if bits is None else rates.rate_alarm(n_bytes, bits, n)
    if alarm:
        log.warning("%s %s: coded %d B, estimated %.0f B", row.encoder, job.point.label, n_bytes, (bits or 0) / 8)
    kmac, params = complexity.of_point(bench, row.task, coding.checkpoint)
    size = coding.checkpoint.stat().st_size if coding.checkpoint else None
    return replace(
        row,
        n_bytes=n_bytes,
        bpp=rates.bpp(n_bytes, row.n_px),
        bpfp=rates.bpfp(n_bytes, row.n_points),
        bytes_per_sample=rates.bytes_per_sample(n_bytes, n),
        bpp_estimated=None if bits is None else rates.bpp_estimated(bits, row.n_px),
        rate_alarm=alarm,
        encode_ms=coding.encode_ms,
        decode_ms=float(np.median(coding.decode_ms)) if coding.decode_ms else None,
        kmac_per_px=kmac,
        n_params=params,
        checkpoint_sha256=coding.checkpoint_sha256,
        checkpoint_bytes=size,
    )


def _unmeasured(bench: Bench, job: Job, task: str) -> RatePoint:
    """All of a row that is known before anything is measured."""
    suite, encoder, store = bench.suite, bench.encoder, bench.test.store
    decoder = bench.task_model(task)
    return RatePoint(
        schema=SCHEMA,
        point=key(bench, job, task),
        status=OK,
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
        objective=((suite.objective if job.fitted_to else "mse") if job.kind == CODED else ""),
        neck=suite.neck,
        head=suite.head_label(task, bench.train.dataset.meta),
        head_sha256=decoder.weights.sha256 if decoder else "",
        neck_loss=suite.neck_loss if decoder else "",
        task=task,
        seed=bench.seed,
        n_samples=len(store),
        n_px=store.n_px,
        n_points=store.n_points,
        n_bytes=None,
        bpp=None,
        bpfp=None,
        bytes_per_sample=None,
        bpp_estimated=None,
        rate_alarm=None,
        metric="",
        value=None,
        ci_low=None,
        ci_high=None,
        unit="",
        protocol="",
        higher_is_better=True,
        primary=True,
        feature_mse=None,
        encode_ms=None,
        decode_ms=None,
        kmac_per_px="",
        n_params="",
        checkpoint_sha256="",
        checkpoint_bytes=None,
        versions=json.dumps(provenance.versions() | _coder_versions(job) | _origin(bench, job, task)),
        device=str(bench.device),
        commit=provenance.commit(),
        utc=provenance.utc_now(),
    )


def _origin(bench: Bench, job: Job, task: str) -> dict[str, str]:
    """What the outside plug-ins behind a row come from."""
    family = bench.encoder.name.partition(":")[0]
    used = [("encoder", family)] if family in registry.names("encoder") else []
    used += [("dataset", bench.suite.dataset), ("neck", bench.suite.neck), ("task", task)]
    used += [codec_kind(job.point.codec)] if job.kind not in (*ENDS, LABELS) else []
    return {k: v for kind, name in used for k, v in registry.origin(kind, name).items()}


def _coder_versions(job: Job) -> dict[str, str]:
    """Versions of the external coders of a codec, image codec or label coder; of a missing one nothing."""
    if job.kind in ENDS:
        return {}
    try:
        if job.kind == LABELS:
            return coder_versions("label", job.tasks[0])
        return coder_versions(*codec_kind(job.point.codec))
    except FcbenchError:
        return {}
