"""Rows of a point, and their keys."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fcbench.core import rates, registry
from fcbench.core.cache import digest
from fcbench.core.codecs import ENDS, Kind, codec_kind
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.registry import coder_versions
from fcbench.core.tasks import metric_values
from fcbench.features.source import Source
from fcbench.measure.complexity import Costs, machine
from fcbench.measure.evaluate import Evaluation, Reader
from fcbench.measure.points import Job, lmbdas_of, starts_of
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial
from fcbench.results import intervals, provenance
from fcbench.results.row import OK, SCHEMA, RatePoint
from fcbench.training import records
from fcbench.training.codec import n_steps
from fcbench.training.convergence import Record
from fcbench.transmit.senders import CodecSender, Sender, Sent

VERSION = 2
"""Bump when points are measured differently; resumed runs then start over."""
log = logging.getLogger(__name__)


def point_key(trial: Trial, job: Job, task: str) -> str:
    """Resumption key of a trial's point."""
    return key_of(trial.study, trial.source.encoder, trial.seed, job, task)


def key_of(study: Study, encoder: Encoder, seed: int, job: Job, task: str) -> str:
    """Resumption key: a hash of everything that determines a point. Needs no features."""
    suite, data, budget = study.suite, study.data, study.suite.budget
    contents: dict[str, Any] = {
        "version": VERSION,
        "dataset": (suite.dataset, study.revision, suite.image_size_px, len(data["train"]), len(data["test"])),
        "on_bad_image": suite.on_bad_image,
        "encoder": (encoder.name, encoder.weights.sha256, suite.split_point or encoder.default_split_point),
        "task": task,
        "neck": suite.neck_label,
        "head": suite.head_label(task, data["train"].meta),
        "readout_budget": None if suite.head == "tail" else budget.of_readout,
        "seed": seed,
        "kind": job.kind.value,
        "codec": job.point.codec,
        "params": dict(job.point.params),
    }
    if suite.codec_data:
        contents["codec_data"] = suite.codec_data
    if suite.features_dtype != "float32":
        contents["features_dtype"] = suite.features_dtype
    if suite.head == "frozen":
        contents |= {"neck_loss": suite.neck_loss, "task_weights": study.task_weights(task)}
    if job.kind == Kind.CEILING:
        contents["null_model"] = suite.null_model
    if job.trained:
        contents |= {"codec_budget": budget.of_codec, "lmbdas": lmbdas_of(suite, job.point.codec)}
        if starts := starts_of(suite, job.point):
            contents["starts"] = [dict(p.params) for p in starts]
    if job.fitted_to:
        contents |= {"objective": suite.objective, "fitted_to": job.fitted_to}
    if origin := _origin(study, encoder, job, task):
        contents["origin"] = origin
    return digest(contents)


def failed_row(trial: Trial, job: Job, task: str, reason: str) -> RatePoint:
    """The row of a point that failed."""
    return replace(_unmeasured(trial, job, task), status=reason)


@dataclass(frozen=True, slots=True)
class Measured:
    """A point as sent and read."""

    sender: Sender
    sent: Sent
    read: Evaluation
    peak_bytes: int | None  # memory that coding and decoding a sample adds


def make_rows(trial: Trial, job: Job, reader: Reader, costs: Costs, done: Measured, key: str) -> list[RatePoint]:
    """Rows of a point, one per metric of its task.

    Args:
        costs: of the neck and the head.
        key: of the reader in ``done.read``.
    """
    evaluation = done.read.evaluations[key]
    row = replace(_unmeasured(trial, job, reader.task.name), **_training("task", reader.training))
    row = _coded(trial, job, row, costs, done)
    values_of = partial(metric_values, reader.task)
    stats = evaluation.stats
    values, drawn = values_of(stats, np.ones((1, len(stats)))), intervals.resampled(stats, values_of)
    out = []
    for i, metric in enumerate(reader.task.metrics):
        low, high = intervals.interval(drawn[metric.name])
        out.append(
            replace(
                row,
                metric=metric.name,
                value=float(values[metric.name][0]),
                ci_low=low,
                ci_high=high,
                unit=metric.unit,
                protocol=metric.protocol,
                higher_is_better=metric.higher_is_better,
                primary=i == 0,
            )
        )
    return out


def _coded(trial: Trial, job: Job, row: RatePoint, costs: Costs, done: Measured) -> RatePoint:
    """A row with its rate, its times and the cost of its stages."""
    sent, read = done.sent, done.read
    n_bytes, bits, n = sent.n_bytes, sent.estimated_bits, row.n_samples
    alarm = None if bits is None else rates.rate_alarm(n_bytes, bits, n)
    if alarm:
        log.warning("%s %s: coded %d B, estimated %.0f B", row.encoder, job.point.label, n_bytes, (bits or 0) / 8)
    codec = done.sender if isinstance(done.sender, CodecSender) else None
    training = records.of(codec.checkpoint) if codec and job.trained else None
    return replace(
        row,
        n_bytes=n_bytes,
        bpp=rates.bpp(n_bytes, row.n_px),
        bpfp=rates.bpfp(n_bytes, row.n_points),
        bytes_per_sample=rates.bytes_per_sample(n_bytes, n),
        bpp_content=rates.bpp_content(n_bytes, sent.parts, row.n_px),
        parts=json.dumps(sent.parts) if sent.parts else "",
        bpp_estimated=None if bits is None else rates.bpp_estimated(bits, row.n_px),
        rate_alarm=alarm,
        **_training("codec", training),
        feature_mse=float(read.feature_errors.mean()),
        encode_ms=sent.encode_ms,
        decode_ms=float(np.median(read.decode_ms)) if read.decode_ms else None,
        peak_mb=None if done.peak_bytes is None else done.peak_bytes / 1e6,
        **trial.complexity.columns(costs, codec.loaded if codec else None),
        checkpoint_sha256=codec.loaded.sha256 if codec else "",
        checkpoint_bytes=codec.checkpoint.stat().st_size if codec else None,
    )


def _training(of: str, record: Record | None) -> dict[str, Any]:
    """Record of a training, by column."""
    if record is None:
        return {}
    values = {"stop": record.stop, "done": record.steps, "seconds": record.seconds}
    values |= {"gain": 100 * record.gain.doubling, "rest": 100 * record.gain.rest}
    return {f"{of}_{column}": value for column, value in values.items()}


def _unmeasured(trial: Trial, job: Job, task: str) -> RatePoint:
    """The fields of a row that are known before anything is measured."""
    study, source = trial.study, trial.source
    suite, encoder, features = study.suite, source.encoder, source.test.features
    frozen = suite.head == "frozen"
    objective = suite.objective if job.fitted_to else "mse"
    return RatePoint(
        schema=SCHEMA,
        point=point_key(trial, job, task),
        status=OK,
        suite=suite.name,
        kind=job.kind.value,
        dataset=suite.dataset,
        dataset_revision=study.revision,
        image_size="x".join(map(str, features.image_px)) if source.test.dataset.has_images else "",
        encoder=encoder.name,
        weights_sha256=encoder.weights.sha256,
        weights_origin=encoder.weights.origin,
        split=source.split_point,
        codec=job.point.codec,
        params=json.dumps(dict(job.point.params)),
        objective=objective if job.kind == Kind.CODED else "",
        neck=suite.neck_label,
        head=suite.head_label(task, source.train.dataset.meta),
        head_sha256=_decoder_sha256(trial, task),
        neck_loss=suite.neck_loss if frozen else "",
        task=task,
        seed=trial.seed,
        features_dtype=suite.features_dtype if suite.features_dtype != "float32" else "",
        resizing=_resizing(source),
        codec_data=f"{suite.codec_data} {study.data['train'].revision}" if suite.codec_data else "",
        n_train=len(source.train.features),
        **_budget(suite, job),
        n_samples=len(features),
        n_px=features.n_px,
        n_points=features.n_scalars,
        versions=json.dumps(provenance.versions() | _coder_versions(job) | _origin(study, encoder, job, task)),
        **machine(study.device),
        commit=provenance.commit(),
        utc=provenance.utc_now(),
    )


def _resizing(source: Source) -> str:
    """How images were brought to one size, and by the encoder to its own; empty if all had it."""
    splits = source.train, source.test
    differs = source.test.dataset.has_images and any(
        sample.size_px != s.features.image_px for s in splits for sample in s.features.samples
    )
    steps = source.test.dataset.resizing if differs else "", source.encoder.resizing
    return "; ".join(step for step in steps if step)


def _budget(suite: Suite, job: Job) -> dict[str, Any]:
    """Length and rate of the trainings of a point's readout and codec, by column."""
    budget = suite.budget
    of_readout = () if suite.head == "tail" else ("width", "task_steps", "task_batch", "task_rate", "tolerance")
    values = {k: getattr(budget, k) for k in of_readout}
    if job.trained:
        steps = n_steps(budget, lmbdas_of(suite, job.point.codec))
        values |= {k: getattr(budget, k) for k in ("codec_batch", "codec_rate", "tolerance")} | {"codec_steps": steps}
    return values


def _decoder_sha256(trial: Trial, task: str) -> str:
    """Hash of a frozen decoder's or a tail's weights; empty for a trained head, or a decoder that cannot be built."""
    if trial.study.suite.head == "tail":
        return trial.source.encoder.weights.sha256
    try:
        decoder = trial.study.task_model(task, trial.source)
    except FcbenchError:
        return ""
    return decoder.weights.sha256 if decoder else ""


def _origin(study: Study, encoder: Encoder, job: Job, task: str) -> dict[str, str]:
    """Sources of the outside plug-ins behind a row."""
    family = registry.encoder_family(encoder.name)
    used = [("encoder", family)] if family in registry.names("encoder") else []
    used += [("dataset", data) for data in (study.suite.dataset, study.suite.codec_data) if data] + [("task", task)]
    used += [("neck", study.suite.neck_label)] if study.suite.neck_label else []
    if study.suite.head == "frozen":
        used.append(("taskmodel", study.suite.task_model(task, study.data["train"].meta)[0]))
    if job.kind == Kind.LABEL:
        used += [("label", task)] if task in registry.names("label") else []
    elif job.kind not in ENDS:
        used.append(codec_kind(job.point.codec))
    origins: dict[str, str] = {}
    for kind, name in used:
        for source, version in registry.origin(kind, name).items():
            taken = origins.get(source, version) != version  # files of a task and of its label coder share their name
            origins[f"{kind}:{source}" if taken else source] = version
    return origins


def _coder_versions(job: Job) -> dict[str, str]:
    """Versions of the external coders of a codec, image codec or label coder; empty if one is missing."""
    if job.kind in ENDS:
        return {}
    try:
        if job.kind == Kind.LABEL:
            return coder_versions("label", job.tasks[0])
        return coder_versions(*codec_kind(job.point.codec))
    except FcbenchError:
        return {}
