"""The paper's tables from rows: accuracy behind one neck or two, by encoder, depth of the necks and distillation.

A share is the part of a reference's accuracy that is left, as in `fcbench.analysis.cross_neck`: a ratio that is 1 if
nothing is lost, whether higher or lower is better. Intervals are 95 %, paired with the reference.
"""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from fcbench.analysis.bootstrap import Bootstrap
from fcbench.analysis.cross_neck import share_left
from fcbench.analysis.estimate import Estimate
from fcbench.analysis.situations import MetricValuesOf, metric_values_of
from fcbench.core import registry
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.results.chain import Chain, parse
from fcbench.results.intervals import N_RESAMPLES
from fcbench.results.row import OK


@dataclass(frozen=True, slots=True)
class Cell:
    """A task on uncoded features of an encoder, behind a chain of necks."""

    encoder: str
    head: str
    neck_loss: str  # empty for trained heads
    chain: Chain
    n_layers: int  # of each neck
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]
    value: Estimate
    of_general: Estimate  # share of the general encoder's accuracy behind the same necks
    of_direct: Estimate  # share of the same encoder's accuracy behind the task's own neck alone
    steps: tuple[int, ...]  # of the training of the last neck and its head, by seed; empty if unknown
    stops: tuple[str, ...]  # why these trainings ended

    @property
    def setting(self) -> str:
        """Head and loss: ``trained``; ``frozen, distill``."""
        return f"frozen, {self.neck_loss}" if self.neck_loss else self.head


def cells(
    rows: pd.DataFrame,
    general: str,
    metric_values_of: MetricValuesOf = metric_values_of,
    n_resamples: int = N_RESAMPLES,
) -> tuple[list[Cell], list[str]]:
    """Cells of the rows of `fcbench.analysis.situations.load`, and notes. Raises `FcbenchError`: all points failed."""
    reasons = [*rows.loc[rows["status"] != OK, "status"], "there are no rows"]
    rows = rows[rows["primary"] & (rows["status"] == OK) & (rows["kind"] == Kind.CEILING)]
    if rows.empty:
        raise FcbenchError(f"no point was measured: {reasons[0]}")
    bootstrap, found = Bootstrap(metric_values_of, n_resamples), []
    for _, situation in rows.groupby(["dataset", "head", "neck_loss", "task", "metric"], sort=False):
        for _, one in situation.groupby(["encoder", "neck"], sort=False):
            first = one.iloc[0]
            encoder, label = first["encoder"], first["neck"]
            chain = parse(label, first["task"], first["split"])
            of_encoder = situation[situation["encoder"] == encoder]
            reference = situation[(situation["encoder"] == general) & (situation["neck"] == label)]
            value, of_general = share_left(reference, one, bootstrap, "the general encoder")
            _, of_direct = share_left(of_encoder[of_encoder["neck"] == chain.neck], one, bootstrap)
            by_seed = one.sort_values("seed")
            found.append(
                Cell(
                    encoder,
                    first["head"],
                    first["neck_loss"],
                    chain,
                    int(registry.get("neck", chain.neck).n_layers or 0),
                    first["metric"],
                    bool(first["higher_is_better"]),
                    tuple(by_seed["seed"]),
                    value,
                    of_general,
                    of_direct,
                    tuple(int(n) for n in by_seed["task_done"].dropna()),
                    tuple(by_seed["task_stop"]),
                )
            )
    return found, bootstrap.notes()


def frame(cells: list[Cell]) -> pd.DataFrame:
    """One cell per row: each number with its interval, or the reason why it is missing."""

    def record(c: Cell) -> dict[str, Any]:
        out = {"encoder": c.encoder, "head": c.head, "neck_loss": c.neck_loss, "layers": c.n_layers}
        out |= {"neck_of": " > ".join(c.chain.before), "task": c.chain.task, "metric": c.metric}
        out |= {"higher_is_better": c.higher_is_better, "seeds": " ".join(map(str, c.seeds))}
        for name in ("value", "of_general", "of_direct"):
            number = asdict(getattr(c, name))
            out |= {name: number.pop("value")} | {f"{name}_{k}": v for k, v in number.items()}
        return out | {"steps": " ".join(map(str, c.steps)), "stop": " ".join(c.stops)}

    return pd.DataFrame(map(record, cells))
