"""Where do codecs err, which errors do tasks read, and is equal error of the features equal accuracy?

    python -m benchmarks.errors --codec hyperprior --codec strata --budget standard --out results/errors

Features are taken apart into cells: a band of frequencies of the map by a principal component of the channels. For
each codec and rate the error in each cell is measured, and the tasks read the features three times: as the codec
decodes them (``decoded``); as an ideal codec would, with the same error in each cell (``planted``); and so again, with
the planted error of every position of every map scaled to what the codec's is there (``placed``). What ``planted``
explains is the place of the errors in the spectrum, what ``placed`` explains beyond it their place in the image.
``--quick`` checks that everything works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks._page import write_records
from fcbench.cli.options import cache_option
from fcbench.codecs.strata.spectrum import dct, inverse_dct, plane
from fcbench.core import registry
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureStats
from fcbench.core.progress import Report
from fcbench.features.feature_set import batches_of
from fcbench.measure.evaluate import evaluate
from fcbench.measure.points import Job, jobs
from fcbench.measure.study import device_of, open_study
from fcbench.measure.suite import BUDGETS, Suite
from fcbench.measure.trial import Trial
from fcbench.reports import style
from fcbench.reports.style import COLOURS, MARKERS, METRIC_LABELS, PAGE_IN, STYLE
from fcbench.results import intervals
from fcbench.training.options import PREPARE_SAMPLES
from fcbench.transmit import checkpoint
from fcbench.transmit.senders import Received

BATCH = 64
Change = Callable[[Tensor, range], Tensor]


class Cells:
    """Features of one map as coefficients [B, C, h w], by band of frequencies and principal component of channels.

    Args:
        x: training features [B, C, h, w].
    """

    def __init__(self, x: Tensor, stats: FeatureStats) -> None:
        self.mean, self.std = stats.mean[:, None, None], stats.std[:, None, None]
        self.grid = (x.shape[-2], x.shape[-1])
        self.where = plane(*self.grid)
        flat = ((x - self.mean) / self.std).transpose(0, 1).flatten(1).double()
        self.vectors = torch.linalg.eigh(flat @ flat.T)[1].flip(1).float()  # [C, C], the strongest component first

    def analyze(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h w], components by frequencies, band after band."""
        return self.where.by_band.sort(self.vectors.T @ dct((x - self.mean) / self.std).flatten(2))

    def synthesize(self, y: Tensor) -> Tensor:
        """Inverse of `analyze`."""
        flat = self.vectors @ self.where.by_band.restore(y)
        return inverse_dct(flat.unflatten(2, self.grid)) * self.std + self.mean

    def by_band(self, y: Tensor) -> Sequence[Tensor]:
        """Coefficients [B, C, n] of each band."""
        return y.split(self.where.by_band.sizes, dim=2)

    def energy(self, y: Tensor) -> Tensor:
        """Mean square of the coefficients in each cell, [bands, C]."""
        return torch.stack([part.square().mean(dim=(0, 2)) for part in self.by_band(y)])

    def shares(self, energy: Tensor) -> Tensor:
        """What each cell [bands, C] adds to the mean square of all coefficients."""
        sizes = torch.tensor(self.where.by_band.sizes, dtype=torch.float32)
        return energy * (sizes / sizes.sum())[:, None] / energy.shape[1]


def ideal(y: Tensor, signal: Tensor, error: Tensor, cells: Cells, noise: torch.Generator) -> Tensor:
    """Coefficients as an ideal codec of Gaussian ones decodes them, with this error in each cell [bands, C].

    A cell whose error reaches its signal is left out; where the error exceeds it, noise makes up for the rest.

    References: Berger, Rate Distortion Theory, 1971 (the test channel).
    """
    out = []
    for part, of_signal, of_error in zip(cells.by_band(y), signal, error):
        kept = (1 - of_error / of_signal.clamp(min=1e-12)).clamp(0, 1)
        # E (kept y - y + noise)^2 = (1 - kept)^2 signal + noise
        left = (of_error - (1 - kept).square() * of_signal).clamp(min=0)
        random = torch.randn(part.shape, generator=noise)
        out.append(kept[:, None] * part + left.sqrt()[:, None] * random)
    return torch.cat(out, dim=2)


@dataclass(frozen=True, slots=True)
class Measured:
    """A codec at a rate.

    Attributes:
        bpp: bits per pixel of the original images, by its entropy model.
        error: in each cell, [bands, C].
        spread: standard deviation of the error over positions of all maps, as a share of its mean.
    """

    job: Job
    bpp: float
    error: Tensor
    spread: float


class Bench:
    """Reads changed features of one trial's test set, which is one map."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.source = trial, trial.source
        if len(self.source.train.features.specs) != 1:
            raise FcbenchError(f"cells are of one map; split point {self.source.split_point} has several")
        (self.name,) = self.source.train.features.specs
        train, self.test = self.source.train.features, self.source.test.features
        self.cells = Cells(
            train.batch(range(min(PREPARE_SAMPLES, len(train))))[self.name], self.source.stats[self.name]
        )
        self.signal = self._mean_energy(lambda x, _: self.cells.analyze(x))

    def read(self, change: Change) -> dict[str, np.ndarray]:
        """Statistics [N, S] of each task on changed features."""
        received = (Received({self.name: change(x, at)}) for x, at in self._batches())
        readers = {task: self.trial.reader(task) for task in self.trial.study.suite.tasks}
        return {task: e.stats for task, e in evaluate(received, self.source, readers).evaluations.items()}

    def codec(self, job: Job) -> tuple[Measured, Change]:
        """A trained codec, and what it decodes."""
        codec: Any = checkpoint.load(self.trial.codec(job)).codec
        bits, positions = [], list[Tensor]()

        def decoded(x: Tensor, at: range) -> Tensor:
            with torch.inference_mode():
                maps, spent = codec({self.name: x})
            bits.append(float(spent.sum()))
            return maps[self.name].clone()

        def lost(x: Tensor, at: range) -> Tensor:
            x_hat = decoded(x, at)
            positions.append(self.by_position(x_hat - x))
            return self.cells.analyze(x_hat) - self.cells.analyze(x)

        error, errors = self._mean_energy(lost), torch.cat(positions)
        return Measured(job, sum(bits) / self.test.n_px, error, float(errors.std() / errors.mean())), decoded

    def by_position(self, error: Tensor) -> Tensor:
        """Mean square over channels of an error [B, C, h, w], in units of the training deviations: [B, 1, h, w]."""
        return (error / self.cells.std).square().mean(dim=1, keepdim=True)

    def planted(self, error: Tensor) -> Change:
        """What an ideal codec with this error in each cell decodes."""
        noise = torch.Generator().manual_seed(0)

        def decoded(x: Tensor, _: range) -> Tensor:
            return self.cells.synthesize(ideal(self.cells.analyze(x), self.signal, error, self.cells, noise))

        return decoded

    def placed(self, error: Tensor, decoded: Change) -> Change:
        """What `planted` decodes, with the planted error scaled to that of a codec at every position."""
        planted = self.planted(error)

        def scaled(x: Tensor, at: range) -> Tensor:
            own, asked = planted(x, at) - x, decoded(x, at) - x
            return x + own * (self.by_position(asked) / self.by_position(own).clamp(min=1e-12)).sqrt()

        return scaled

    def _batches(self) -> Iterator[tuple[Tensor, range]]:
        for at in batches_of(len(self.test), BATCH):
            yield self.test.batch(at)[self.name], at

    @torch.inference_mode()
    def _mean_energy(self, coefficients: Callable[[Tensor, range], Tensor]) -> Tensor:
        parts = [len(at) * self.cells.energy(coefficients(x, at)) for x, at in self._batches()]
        return (torch.stack(parts).sum(dim=0) / len(self.test)).clone()


@dataclass(frozen=True, slots=True)
class Reading:
    """A task's metric at a codec's rate, and resampled [R], by how the features were read."""

    measured: Measured
    snr_db: float
    task: str
    metric: str
    values: dict[str, float]
    draws: dict[str, np.ndarray]

    @property
    def record(self) -> dict[str, Any]:
        """Its line in the table: the values, and what planted errors leave to explain."""
        of_decoded, value = self.draws["decoded"], self.values["decoded"]
        record = {
            "codec": self.measured.job.point.codec,
            "lmbda": self.measured.job.point.params["lmbda"],
            "bpp": self.measured.bpp,
            "feature_snr": self.snr_db,
            "spread": self.measured.spread,
            "task": self.task,
            "metric": self.metric,
            **self.values,
        }
        for name in ("planted", "placed"):
            record |= estimate(f"decoded_less_{name}", value - self.values[name], of_decoded - self.draws[name])
        return record


def estimate(name: str, value: float, draws: np.ndarray) -> dict[str, float]:
    """A value and the ends of its interval as columns of a table."""
    low, high = intervals.interval(draws)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def readings(bench: Bench, measured: Measured, stats: dict[str, dict[str, np.ndarray]]) -> Iterator[Reading]:
    """A reading per task, from statistics [N, S] by way of reading and task."""
    snr_db = -10 * float(bench.cells.shares(measured.error).sum().log10())
    for task in stats["uncoded"]:
        bound = bench.trial.reader(task).task
        metric = bound.metrics[0].name
        tables = {name: of_tasks[task] for name, of_tasks in stats.items()}
        values = {name: float(bound.values(table.sum(0))[metric]) for name, table in tables.items()}
        draws = {n: intervals.resampled(t, lambda s, w: bound.values(w @ s))[metric] for n, t in tables.items()}
        yield Reading(measured, snr_db, task, metric, values, draws)


def at_equal_snr(found: Sequence[Reading]) -> Iterator[dict[str, Any]]:
    """Mean difference of each codec's curve over the SNR to the first codec's, one record per task."""
    codecs, tasks = (list(dict.fromkeys(v)) for v in zip(*((r.measured.job.point.codec, r.task) for r in found)))
    for task in tasks:
        of_codec = {c: [r for r in found if (r.measured.job.point.codec, r.task) == (c, task)] for c in codecs}
        for codec in codecs[1:]:
            pair = [sorted(of_codec[c], key=lambda r: r.snr_db) for c in (codec, codecs[0])]
            grid = np.linspace(max(p[0].snr_db for p in pair), min(p[-1].snr_db for p in pair), 64)
            record: dict[str, Any] = {"codec": codec, "less": codecs[0], "task": task, "metric": pair[0][0].metric}
            for name in ("decoded", "planted", "placed"):
                value, draws = 0.0, np.zeros(())
                for sign, points in zip((1, -1), pair):
                    ats = [r.snr_db for r in points]
                    shares = [float(np.interp(grid, ats, one).mean()) for one in np.eye(len(points))]
                    value += sign * sum(s * r.values[name] for s, r in zip(shares, points))
                    draws = draws + sign * sum(s * r.draws[name] for s, r in zip(shares, points))
                record |= estimate(name, value, draws)
            yield record


def draw(table: pd.DataFrame, spectra: pd.DataFrame) -> Figure:
    """Above: error by band over the signal's, at each rate. Below: a panel per task, accuracy over SNR of features."""
    codecs, tasks = (list(dict.fromkeys(table[name])) for name in ("codec", "task"))
    lmbdas = sorted(set(table["lmbda"]))
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 3.6), layout="constrained")
        halves: Any = fig.subfigures(2, 1, height_ratios=(1, 1.2))
        upper, lower = halves
        (above,) = upper.subplots(1, len(lmbdas), sharey=True, squeeze=False)
        (below,) = lower.subplots(1, len(tasks), squeeze=False)
        for ax, lmbda in zip(above, lmbdas):
            at = spectra[spectra["lmbda"] == lmbda]
            for i, codec in enumerate(codecs):
                one = at[at["codec"] == codec]
                ax.plot(one["band"], one["error"] / one["signal"], color=COLOURS[i], marker=MARKERS[i], ms=3, lw=1)
            ax.set_ylim(0, 1.1)
            ax.set_title(f"lmbda {lmbda:g}")
            ax.set_xlabel("Band of frequencies")
        above[0].set_ylabel("Error / signal")
        for ax, task in zip(below, tasks):
            of_task = table[table["task"] == task]
            for i, codec in enumerate(codecs):
                one = of_task[of_task["codec"] == codec].sort_values("feature_snr")
                how: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 3, "lw": 1}
                ax.plot(one["feature_snr"], one["decoded"], label=codec, **how)
                ax.plot(one["feature_snr"], one["planted"], ls=":", label=f"{codec}, planted", **how)
                ax.plot(one["feature_snr"], one["placed"], ls="--", label=f"{codec}, placed", **how)
            ax.axhline(float(of_task["uncoded"].iloc[0]), color="0.5", lw=0.7, ls="--")
            metric = str(of_task["metric"].iloc[0])
            ax.set_title(task)
            ax.set_xlabel("SNR of features (dB)")
            ax.set_ylabel(METRIC_LABELS.get(metric, metric))
        lower.legend(*below[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return fig


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__ and __doc__.split("\n")[0])
@click.option("--encoder", default="hiera_nano", show_default=True)
@click.option("--codec", "codecs", multiple=True, default=["hyperprior", "strata"], help="Repeatable.")
@click.option("--lambdas", default="0.3,0.8,2,6,20", show_default=True, help="Separated by commas.")
@click.option("--task", "tasks", multiple=True, default=["segmentation", "depth", "pose"], help="Repeatable.")
@click.option(
    "--budget", type=click.Choice(BUDGETS), default="standard", show_default=True, help="As of `fcbench run`."
)
@click.option("--quick", is_flag=True, help="Tiny sizes to check that everything works; not to be quoted.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/errors"), show_default=True)
@cache_option
def main(
    encoder: str,
    codecs: tuple[str, ...],
    lambdas: str,
    tasks: tuple[str, ...],
    budget: str,
    quick: bool,
    out: Path,
    cache_dir: Path,
) -> None:
    torch.set_num_threads(1)
    if not all(registry.get("codec", name).trained for name in codecs):
        raise FcbenchError("--codec takes codecs that are trained: their operating points are lmbdas")
    sweep = tuple({"lmbda": float(v)} for v in lambdas.split(","))
    suite = Suite(name="errors", encoders=(encoder,), codecs=codecs, tasks=tasks, params=dict.fromkeys(codecs, sweep))
    suite = suite.at(budget).quick() if quick else suite.at(budget)
    found: list[Reading] = []
    spectra: list[dict[str, Any]] = []
    with Report(0) as report:
        study = open_study(suite, cache_dir, device_of("cpu"))
        bench = Bench(Trial(study, study.source(study.encoder(encoder), report), 0, report))
        uncoded = bench.read(lambda x, _: x)
        for job in (j for j in jobs(suite) if j.kind == Kind.CODED):
            measured, decoded = bench.codec(job)
            changes = {"decoded": decoded, "planted": bench.planted(measured.error)}
            changes |= {"placed": bench.placed(measured.error, decoded)}
            stats = {"uncoded": uncoded} | {name: bench.read(change) for name, change in changes.items()}
            found += readings(bench, measured, stats)
            for band, signal, error in zip(bench.cells.where.bands, bench.signal, measured.error):
                place = {"codec": job.point.codec, "lmbda": job.point.params["lmbda"], "band": band}
                spectra.append(place | {"signal": float(signal.mean()), "error": float(error.mean())})
            click.echo(f"{job.point.label}: {measured.bpp:.4g} bpp, {found[-1].snr_db:.2f} dB")
    table = [reading.record for reading in found]
    write_records(out / "errors", table)
    write_records(out / "equal_snr", list(at_equal_snr(found)))
    write_records(out / "spectra", spectra)
    style.save(draw(pd.DataFrame(table), pd.DataFrame(spectra)), out / "errors.png")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (FcbenchError, click.ClickException) as error:
        raise SystemExit(f"Error: {error}") from None
