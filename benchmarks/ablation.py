"""What is each part of ``strata`` worth? BD-rates of the codec without it, at equal error of held-out features.

    python -m benchmarks.ablation --encoder hiera_nano --encoder sam2_nano --steps 400 --out results/ablation

Every variant is trained as in ``fcbench run``: the middle operating point from scratch, every other one from its
neighbour's weights. Bits (by the entropy model) and squared error are those of held-out training samples. The whole
codec with another seed shows what chance does; ``hyperprior``, trained in the same way, is there for scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.convergence import Bench, Trained, bench_of, frame, learned
from fcbench.analysis import curves as rate_curves
from fcbench.cli.options import cache_option
from fcbench.codecs.shared.learned import LearnedPlugin, MapCoder
from fcbench.codecs.strata import Expected, ScaleNet, StrataMap, spectrum
from fcbench.codecs.strata.spectrum import N_BANDS, Ring, Spectrum
from fcbench.core.files import write_atomically
from fcbench.reports.tables import Document, Table, markdown

LMBDAS = "0.12,0.3,0.8,2,6,20"
WHOLE = "the whole codec"


# ------------------------------------------------------------------------------------------ variants
class NearestIntegers(StrataMap):
    """Rounds to the nearest integer, whatever it costs."""

    def _round(self, y: Tensor, log_scales: Tensor) -> Tensor:
        return torch.round(y)


class OneGaussian(StrataMap):
    """One Gaussian, whose width is still learned, instead of a mixture of two."""

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, lmbda)
        self.mix.data = torch.tensor([20.0, 0.0, 0.0])  # weight of the first: 1 - 2e-9


class CellMiddles(StrataMap):
    """Decodes an integer to itself."""

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, lmbda)
        self.shift.requires_grad_(False)

    def _centroids(self, y: Tensor, where: spectrum.Plane) -> None:
        pass


class StaticScales(ScaleNet):
    """Scales from the table alone."""

    @staticmethod
    def features(ring: Ring, expected: Expected | None, decoded: Tensor) -> list[Tensor]:
        return []


class NoContext(StrataMap):
    """Scales do not depend on what was decoded before."""

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, lmbda)
        self.net.__class__ = StaticScales


class NoRefinement(StrataMap):
    """Decoded features as the inverse transform gives them."""

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, lmbda)
        refine = nn.Identity()
        refine.start = lambda decoded, x: None  # type: ignore[assignment]
        self.spectrum.refine = refine  # type: ignore[assignment]


class LinearTransforms(NoRefinement):
    """Neither the refinement nor the residual layers around the transforms."""

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, lmbda)
        self.spectrum.before, self.spectrum.after = nn.Identity(), nn.Identity()  # type: ignore[assignment]


class OneKlt(Spectrum):
    """One KLT for all frequencies; training may still move the bands' matrices apart."""

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        super().start(x)
        flat = spectrum.dct(x).flatten(2) - self.mean_map(*x.shape[-2:]).flatten(1)
        joined = flat.transpose(0, 1).flatten(1).double()
        rows = torch.linalg.eigh(joined @ joined.T)[1].flip(1).T.float().repeat(N_BANDS, 1, 1)
        self.forth.copy_(rows)
        self.back.copy_(rows.transpose(1, 2))
        return rows[0] @ flat


class OneKltMap(StrataMap):
    """`StrataMap` with `OneKlt`."""

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, lmbda)
        self.spectrum = OneKlt(channels)


def positions_for_frequencies() -> AbstractContextManager[object]:
    """The identity in the place of the DCT: coefficients are positions."""
    return mock.patch.object(spectrum, "cosines", lambda n, like: torch.eye(n).to(like))


@dataclass(frozen=True, slots=True)
class Variant:
    """A codec with something missing.

    Attributes:
        make: (channels, lmbda) to the coder of a map.
        trained: False to leave it as the closed forms make it.
        changed: what holds while it is built and trained.
    """

    name: str
    make: Callable[[int, float], MapCoder] = StrataMap
    trained: bool = True
    seed: int = 0
    changed: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def plugin(self) -> LearnedPlugin:
        return LearnedPlugin("strata", self.make)


VARIANTS = (
    Variant(WHOLE),
    Variant("another seed", seed=1),
    Variant("no training after the closed forms", trained=False),
    Variant("no context of decoded rings", NoContext),
    Variant("nearest integers (no rate in rounding)", NearestIntegers),
    Variant("one Gaussian instead of two", OneGaussian),
    Variant("no centroids", CellMiddles),
    Variant("no refinement", NoRefinement),
    Variant("no refinement, no residual layers", LinearTransforms),
    Variant("one KLT for all bands", OneKltMap),
    Variant("one KLT, no DCT", OneKltMap, changed=positions_for_frequencies),
)


# ----------------------------------------------------------------------------------------- measuring
def sweep(bench: Bench, variant: Variant, lmbdas: Sequence[float], steps: int, share: float) -> Iterator[Trained]:
    """All operating points of a variant, the middle one first."""
    with variant.changed():
        if variant.trained:
            yield from bench.continued(variant.plugin, lmbdas, steps, share)
            return
        for lmbda in lmbdas:
            codec = bench.fresh(variant.plugin, lmbda)
            record = bench.train(codec, lmbda, 1, slower=1e-6)  # a step of no effect: for the validation after it
            yield bench.measured("strata", lmbda, "closed forms", 0, record)


def compared(rows: pd.DataFrame) -> Table:
    """BD-rate of each variant against the whole codec, per encoder."""
    encoders = list(dict.fromkeys(rows["encoder"]))
    cells = []
    for name in dict.fromkeys(rows["variant"]):
        line = [str(name)]
        for encoder in encoders:
            whole, own = (
                rows[(rows["encoder"] == encoder) & (rows["variant"] == v)].sort_values("lmbda") for v in (WHOLE, name)
            )
            if own.empty:  # its turn comes
                line.append("")
                continue
            found = rate_curves.bd_rate(*(rate_curves.curve(c.bits, c.distortion, False) for c in (whole, own)))
            line.append(f"{found.value:+.1f}" if found.value is not None else found.reason)
        cells.append(line)
    return Table("Bits of strata without a part (BD-rate, %)", ("without", *map(str, encoders)), cells)


LEGEND = "BD-rate: bits against squared error of held-out features; positive: the part saves so much."


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--encoder", "encoders", multiple=True, default=["hiera_nano"], help="Repeatable. [hiera_nano]")
@click.option("--n-train", type=click.IntRange(min=1), help="Training samples. [all]")
@click.option("--lmbdas", default=LMBDAS, show_default=True, help="Separated by commas.")
@click.option("--steps", default=400, show_default=True, help="Of the middle operating point.")
@click.option("--share", default=0.25, show_default=True, help="Of the steps, for every other operating point.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/ablation"), show_default=True)
@cache_option
def main(
    encoders: tuple[str, ...],
    n_train: int | None,
    lmbdas: str,
    steps: int,
    share: float,
    out: Path,
    cache_dir: Path,
) -> None:
    """Measure strata without each of its parts."""
    torch.set_num_threads(1)
    points, found = [float(v) for v in lmbdas.split(",")], list[pd.DataFrame]()
    hyperprior = Variant("hyperprior", learned("hyperprior").make)
    for encoder in encoders:
        bench = bench_of(encoder, n_train, cache_dir)
        for variant in (*VARIANTS, hyperprior):
            bench.seed = variant.seed
            trained = list(sweep(bench, variant, points, steps, share))
            found.append(frame(trained).assign(encoder=encoder, variant=variant.name))
            rows = pd.concat(found, ignore_index=True)
            table = compared(rows)
            click.echo(f"{encoder}: {variant.name}: {table.rows[-1][-1]}")
            text = rows.to_csv(index=False, lineterminator="\n")
            write_atomically(out / "ablation.csv", text)
            write_atomically(out / "ablation.md", markdown(Document([table], "trainings", rows, LEGEND)))


if __name__ == "__main__":
    main()
