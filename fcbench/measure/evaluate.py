"""Evaluation of decoded features by readouts: a task's statistics, and log-likelihoods of the targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import Collecting, Task
from fcbench.features.source import Source
from fcbench.features.statistics import sample_errors
from fcbench.measure.density import Scorer
from fcbench.training.convergence import Record
from fcbench.training.targets import Targets
from fcbench.transmit.senders import Received


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads decoded features for a task.

    Attributes:
        model: maps of the encoder to the head's input; has the head.
        targets: of the test samples.
        scorer: None if the head states no likelihood.
        training: how neck and head were trained; None for a tail.
    """

    task: Task
    model: Any
    targets: Targets
    scorer: Scorer | None
    training: Record | None


@dataclass(frozen=True, slots=True)
class TaskEvaluation:
    """Statistics [N, S] of a reader's task, and log-likelihoods [N] nats if its head states them."""

    stats: np.ndarray
    log_likelihood: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of several readers on a received test set.

    Attributes:
        evaluations: by reader.
        feature_errors: mean squared error of each sample's features, divided by their training standard deviation, [N].
        decode_ms: of each sample; empty if nothing was decoded.
    """

    evaluations: Mapping[str, TaskEvaluation]
    feature_errors: np.ndarray
    decode_ms: Sequence[float] = field(default_factory=list)


def evaluate(received: Iterable[Received], source: Source, readers: Mapping[str, Reader]) -> Evaluation:
    """Read decoded features with several readers.

    Args:
        received: batches in the order of the source's test set.
        readers: by any key.

    Raises:
        FcbenchError: a number of samples other than the test set's, or a likelihood that is not finite.
    """
    test, n_read = source.test.features, 0
    errors = np.zeros(len(test))
    stats = {key: list[np.ndarray]() for key in readers}
    likelihoods = {key: list[np.ndarray]() for key, r in readers.items() if r.scorer}
    decode_ms: list[float] = []
    with torch.inference_mode(), ExitStack() as stack:
        collecting = {k: r.task.collecting() for k, r in readers.items() if isinstance(r.task, Collecting)}
        collectors = {k: c for k, how in collecting.items() if (c := stack.enter_context(how))}
        for batch in received:
            indices = range(n_read, n_read + len(next(iter(batch.maps.values()))))
            n_read = indices.stop
            decode_ms += batch.decode_ms
            if not batch.exact:
                lost = sample_errors(test.batch(indices), batch.maps, source.stats)
                errors[indices.start : indices.stop] = lost.numpy()
            for key, r in readers.items():
                targets, head = r.task.collate(r.targets(indices)), r.model.head
                x = r.model(batch.maps)
                said = head.predict(x, targets)
                stats[key].append(r.task.statistics(said, targets))
                if key in collectors:
                    collectors[key].add(said, targets)
                if r.scorer:
                    likelihoods[key].append(r.scorer(x, targets))
        if n_read != len(test):
            raise FcbenchError(f"decoded {n_read} samples of {len(test)}: the stream is not of this data set")
        tables = {key: np.concatenate(s) for key, s in stats.items()}
        tables |= {key: np.hstack([tables[key], c.statistics()]) for key, c in collectors.items()}
    evaluations = {
        key: TaskEvaluation(table, np.concatenate(likelihoods[key]) if key in likelihoods else None)
        for key, table in tables.items()
    }
    for key, one in evaluations.items():
        if one.log_likelihood is not None and not np.isfinite(one.log_likelihood).all():
            raise FcbenchError(f"the head of {key} gives a target zero probability, or NaN")
    return Evaluation(evaluations, errors, decode_ms)
