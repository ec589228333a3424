"""Is an embedded encoder better than its own trunk with random weights? Uncoded, the same neck and head, every task.

    python -m benchmarks.embedded.bar --cache-dir DIR > results/embedded/bar.csv

Prints one row per task and encoder: the primary metric with embedded and with random weights, and the 95 % interval of
their difference, paired over test samples; above zero, the embedded weights are better.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import click
import torch

from fcbench.core import registry
from fcbench.core.progress import Report
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial
from fcbench.results import intervals
from fcbench.training.options import Budget

TASKS = ("segmentation", "depth", "pose", "captioning", "classification")
FIELDS = "encoder task metric embedded random gain ci_low ci_high n_test".split()


@click.command(help=__doc__)
@click.option("--cache-dir", type=click.Path(path_type=Path), required=True)
@click.option("--encoder", "encoders", multiple=True, default=("hiera_nano", "sam2_nano"), show_default=True)
@click.option("--steps", default=Budget().task_steps, show_default=True, help="Training steps of neck and head.")
@click.option("--seed", default=0, show_default=True)
def main(cache_dir: Path, encoders: tuple[str, ...], steps: int, seed: int) -> None:
    suite = Suite(tasks=TASKS, encoders=encoders)
    suite = replace(suite, budget=replace(suite.budget, task_steps=steps))
    device = torch.device("cpu")
    out = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
    out.writeheader()
    with Report(2 * len(encoders) * (len(TASKS) + 2)) as report:
        study = open_study(suite, cache_dir, device)
        for name in encoders:
            built = [registry.build_encoder(name, weights, device) for weights in (None, "random")]
            trials = [Trial(study, study.source(encoder, report), seed, report) for encoder in built]
            for task in TASKS:
                tables = [trial.evaluate_uncoded(task).evaluations[task].stats for trial in trials]
                bound = trials[0].reader(task).task
                metric = bound.metrics[0]
                sign = 1 if metric.higher_is_better else -1
                values = [float(bound.values(t.sum(0))[metric.name]) for t in tables]
                a, b = (intervals.resampled(t, lambda s, w: bound.values(w @ s))[metric.name] for t in tables)
                low, high = intervals.interval(sign * (a - b))
                row = (name, task, metric.name, *values, sign * (values[0] - values[1]), low, high, len(tables[0]))
                out.writerow(dict(zip(FIELDS, (f"{v:.4f}" if isinstance(v, float) else v for v in row))))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
