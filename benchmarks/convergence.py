"""Do codecs converge, what would more training gain, and what is the fastest way to train a sweep?

    python -m benchmarks.convergence curves --codec hyperprior --codec strata     # loss against steps and seconds
    python -m benchmarks.convergence sweep --codec hyperprior                     # ways to train all operating points

``curves`` trains each codec twice, the second time for twice the steps, and compares the gain that the first training
predicted with the one that was found. ``sweep`` trains all operating points of a codec, each from scratch
(``independent``), and as in ``fcbench run``: the middle one from scratch, every other one from the weights of its
neighbour with a share of the steps (``continued``); the ways are compared by BD-rate of features on the held-out
training samples, and by time. All losses are of held-out training samples.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from fcbench.analysis import curves as rate_curves
from fcbench.cli.options import cache_option
from fcbench.codecs.shared.learned import LearnedPlugin
from fcbench.core import registry
from fcbench.core.progress import Report
from fcbench.features.source import Source
from fcbench.measure.points import to_middle
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.reports import style
from fcbench.reports.tables import Document, Table, markdown
from fcbench.training import loop
from fcbench.training.codec import CONTINUED_SHARE, continued_rate, fit_codec
from fcbench.training.convergence import Record
from fcbench.training.options import PREPARE_SAMPLES, Budget

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Trained:
    """One training of a codec.

    Attributes:
        way: ``independent``, or ``continued`` and the share of the steps.
        bits: per scalar, of held-out samples.
        distortion: of them, in units of the training variance.
        predicted_percent: bits that as many steps again would save.
    """

    codec: str
    lmbda: float
    way: str
    budget: int
    steps: int
    seconds: float
    stop: str
    loss: float
    bits: float
    distortion: float
    predicted_percent: float
    rest_percent: float
    curve: str


class Bench:
    """Trains codecs on one encoder's features.

    Args:
        rate: learning rate; None for the default one.
    """

    def __init__(self, source: Source, seed: int = 0, rate: float | None = None) -> None:
        self.source, self.seed, self.rate = source, seed, rate or Budget().codec_rate

    def built(self, plugin: LearnedPlugin, lmbda: float) -> Any:
        """A codec that has not seen features."""
        torch.manual_seed(self.seed)
        return plugin.build(list(self.source.train.features.specs.values()), self.source.stats, {"lmbda": lmbda})

    def fresh(self, plugin: LearnedPlugin, lmbda: float) -> Any:
        """A codec before training."""
        codec, features = self.built(plugin, lmbda), self.source.train.features
        train, _ = loop.held_out(len(features))
        maps = features.batch(train[:PREPARE_SAMPLES])
        codec.prepare([maps[name] for name in features.specs])
        return codec

    def train(self, codec: Any, lmbda: float, steps: int, slower: float = 1.0) -> Record:
        """Train in place for all steps, at this share of the learning rate."""
        with tempfile.TemporaryDirectory() as folder:
            return fit_codec(
                codec,
                (lmbda, lmbda),
                self.source.train.features,
                self.source.stats,
                Budget(codec_steps=steps, codec_rate=slower * self.rate, tolerance=0),
                objective="mse",
                task_loss=None,
                device=CPU,
                seed=self.seed,
                resume=Path(folder) / "resume",
            )

    def measured(self, name: str, lmbda: float, way: str, budget: int, record: Record) -> Trained:
        """A training as a row."""
        best = min(record.curve, key=lambda look: look.loss)
        return Trained(
            name,
            lmbda,
            way,
            budget,
            record.steps,
            round(record.seconds, 2),
            record.stop,
            best.loss,
            best.unit,
            (best.loss - best.unit) / lmbda,
            100 * record.gain.doubling,
            100 * record.gain.rest,
            json.dumps([[look.step, round(look.seconds, 2), look.loss, look.unit] for look in record.curve]),
        )

    def doubled(self, plugin: LearnedPlugin, lmbda: float, steps: int) -> Iterator[Trained]:
        """A training of this many steps, and one of twice as many."""
        for n in (steps, 2 * steps):
            yield self.measured(plugin.name, lmbda, "independent", n, self.train(self.fresh(plugin, lmbda), lmbda, n))

    def independent(self, plugin: LearnedPlugin, lmbdas: Sequence[float], steps: int) -> Iterator[Trained]:
        """Every operating point from scratch."""
        for lmbda in lmbdas:
            record = self.train(self.fresh(plugin, lmbda), lmbda, steps)
            yield self.measured(plugin.name, lmbda, "independent", steps, record)

    def continued(self, plugin: LearnedPlugin, lmbdas: Sequence[float], steps: int, share: float) -> Iterator[Trained]:
        """The middle operating point from scratch, every other one from its neighbour's weights."""
        trained: dict[float, Any] = {}
        for lmbda in sorted(lmbdas, key=lambda v: abs(lmbdas.index(v) - len(lmbdas) // 2)):
            starts = to_middle(lmbdas, lmbda)
            codec = self.built(plugin, lmbda) if starts else self.fresh(plugin, lmbda)
            if starts:
                codec.continue_from(trained[starts[0]], starts[0], lmbda, [])
            n = math.ceil(share * steps) if starts else steps
            slower = continued_rate(starts[0], lmbda) if starts else 1.0
            record = self.train(codec, lmbda, n, slower)
            yield self.measured(plugin.name, lmbda, f"continued, {share:g} of the steps", n, record)
            trained[lmbda] = codec


# -------------------------------------------------------------------------------------------- output
def frame(found: Sequence[Trained]) -> pd.DataFrame:
    """Trainings as a table, one per row."""
    return pd.DataFrame([asdict(t) for t in found])


def doublings(rows: pd.DataFrame) -> Table:
    """Predicted and actual gain of each doubling."""
    cells = []
    for (codec, lmbda), one in rows.groupby(["codec", "lmbda"], sort=False):
        for a, b in itertools.pairwise(one.sort_values("budget").itertuples()):
            found = -100 * math.expm1((b.loss - a.loss) / a.bits)
            cells.append(
                [str(codec), f"{lmbda:g}", f"{a.steps}", f"{a.loss:.4f}", f"{a.bits:.4f}"]
                + [f"{a.predicted_percent:.1f}", f"{found:.1f}", f"{a.rest_percent:.0f}"]
            )
    header = ("codec", "lmbda", "steps", "loss", "bits", "predicted (%)", "found (%)", "left (%)")
    return Table("Bits that as many steps again save", header, cells)


def ways(rows: pd.DataFrame) -> Table:
    """Compare each way of training a sweep with the independent one."""
    cells = []
    for codec, one in rows.groupby("codec", sort=False):
        lines = {w: r for w, r in one.groupby("way", sort=False)}
        anchor = lines["independent"]
        for way, r in lines.items():
            rate = rate_curves.bd_rate(*(rate_curves.curve(c.bits, c.distortion, False) for c in (anchor, r)))
            saved = f"{rate.value:+.1f}" if rate.value is not None else rate.reason
            share = r.seconds.sum() / anchor.seconds.sum()
            cells.append([str(codec), str(way), f"{r.steps.sum()}", f"{r.seconds.sum():.0f}", f"{share:.2f}", saved])
    header = ("codec", "way", "steps", "seconds", "of the time", "BD-rate (%)")
    return Table("Ways to train a sweep", header, cells, n_left=2)


def figure(rows: pd.DataFrame) -> Figure:
    """Validation loss against steps and seconds, one colour per codec and lmbda."""
    with rc_context(style.STYLE):
        fig = Figure(figsize=(style.PAGE_IN, 2.6))
        fig.set_layout_engine("constrained")
        axes = fig.subplots(1, 2, sharey=True)
        names = list(dict.fromkeys(zip(rows["codec"], rows["lmbda"])))
        for row in rows.itertuples():
            looks = np.array(json.loads(str(row.curve)))
            i = names.index((row.codec, row.lmbda))
            longest = row.budget == rows.loc[(rows.codec == row.codec) & (rows.lmbda == row.lmbda), "budget"].max()
            label = f"{row.codec}, lmbda {row.lmbda:g}" if longest else None
            for ax, x in zip(axes, looks[:, :2].T):
                colour = style.COLOURS[i % len(style.COLOURS)]
                ax.plot(x, looks[:, 2], color=colour, lw=1.1 if longest else 0.6, label=label)
        looks = np.concatenate([json.loads(curve) for curve in rows["curve"]])
        for ax, label, x in zip(axes, ("steps", "seconds"), looks.T):
            style.log_axis([ax], "x", x.min(), x.max())
            ax.set_xlabel(label)
        axes[0].set_ylabel("validation loss (bits per scalar)")
        fig.legend(*axes[1].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return fig


CURVES_LEGEND = (
    "Predicted: from the validation curve of the shorter training. Found: what twice the steps saved. Both at equal "
    "distortion. Left: an extrapolation to endless training. The machine was shared: seconds vary."
)
SWEEP_LEGEND = "BD-rate: bits against squared error of held-out features. The machine was shared: seconds vary."


def write(out: Path, name: str, rows: pd.DataFrame, table: Table, legend: str) -> None:
    """OUT/NAME.csv and OUT/NAME.md."""
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / f"{name}.csv", index=False)
    (out / f"{name}.md").write_text(markdown(Document([table], "trainings", rows, legend)))


# ------------------------------------------------------------------------------------------------ commands
@click.group()
def main() -> None:
    """Convergence of codecs, measured on features of scenes."""


def _options(function: Any) -> Any:
    for option in (
        click.option("--codec", "codecs", multiple=True, default=("hyperprior",), show_default=True),
        click.option("--encoder", default="hiera_nano", show_default=True),
        click.option("--n-train", type=int, help="Training samples. [all]"),
        click.option("--lmbdas", default="2", show_default=True, help="Separated by commas."),
        click.option("--steps", default=300, show_default=True),
        click.option("--out", type=click.Path(path_type=Path), default=Path("results/convergence"), show_default=True),
        cache_option,
    ):
        function = option(function)
    return function


def learned(name: str) -> LearnedPlugin:
    """A codec that is trained, by name."""
    plugin = registry.get("codec", name)
    if not isinstance(plugin, LearnedPlugin):
        raise click.BadParameter(f"{name} is not one of fcbench's learned codecs")
    return plugin


def bench_of(encoder: str, n_train: int | None, cache_dir: Path) -> Bench:
    """A bench for one encoder on scenes."""
    suite = Suite(encoders=(encoder,), n_train=n_train, n_test=1)  # the test split is not used
    study = open_study(suite, cache_dir, CPU)
    with Report(0) as report:
        return Bench(study.source(study.encoder(encoder), report))


@main.command()
@_options
def curves(
    codecs: tuple[str, ...], encoder: str, n_train: int | None, lmbdas: str, steps: int, out: Path, cache_dir: Path
) -> None:
    """Loss against steps and seconds; predicted and found gain of a doubling."""
    bench, found = bench_of(encoder, n_train, cache_dir), list[Trained]()
    for codec in codecs:
        for lmbda in map(float, lmbdas.split(",")):
            for trained in bench.doubled(learned(codec), lmbda, steps):
                found.append(trained)
                click.echo(f"{codec} {lmbda:g}: {trained.steps} steps, loss {trained.loss:.4f}")
            rows = frame(found)
            write(out, "curves", rows, doublings(rows), CURVES_LEGEND)
            style.save(figure(rows), out / "curves.png")


@main.command()
@_options
@click.option("--share", "shares", multiple=True, default=(CONTINUED_SHARE,), show_default=True)
def sweep(
    codecs: tuple[str, ...],
    encoder: str,
    n_train: int | None,
    lmbdas: str,
    steps: int,
    out: Path,
    cache_dir: Path,
    shares: tuple[float, ...],
) -> None:
    """Ways to train all operating points of a codec; a continued one takes a share of the steps."""
    bench, points, found = bench_of(encoder, n_train, cache_dir), [float(v) for v in lmbdas.split(",")], list[Trained]()
    for codec in codecs:
        plugin = learned(codec)
        ways_in_turn = [bench.independent(plugin, points, steps)]
        ways_in_turn += [bench.continued(plugin, points, steps, share) for share in shares]
        for trained in itertools.chain.from_iterable(ways_in_turn):
            found.append(trained)
            click.echo(f"{trained.way} {codec} {trained.lmbda:g}: {trained.steps} steps, loss {trained.loss:.4f}")
        rows = frame(found)
        write(out, "sweep", rows, ways(rows), SWEEP_LEGEND)


if __name__ == "__main__":
    main()
