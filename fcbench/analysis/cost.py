"""The cost of an encoder's specialization: special encoder less general one, per task, with 95 % intervals.

1. Uncoded accuracy: the metric's difference at the ceiling.
2. Extra bits at equal accuracy (BD-rate) and accuracy at equal bits (BD-accuracy), for each codec: as in
   `fcbench.analysis.compare`, but between encoders instead of codecs.
3. Usable information in bits per sample: what readouts extract from uncoded features (`fcbench.analysis.information`).

All differences are special less general, in the metric's own sign; `verdict` says which side bears the cost. `Kept` is
the information that the same readouts extract from coded features, compared with the bits sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from fcbench.analysis import bootstrap, compare, information, open_ended, situations
from fcbench.analysis.bootstrap import Bootstrap, Likelihoods, points
from fcbench.analysis.estimate import Estimate, estimate
from fcbench.analysis.situations import MetricValuesOf, metric_values_of
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.results.intervals import N_RESAMPLES
from fcbench.results.row import OK

ENCODER = ("encoder", "weights_sha256", "split")  # Columns of a situation in which the two encoders may differ
SHARED = tuple(c for c in situations.SITUATION if c not in ENCODER)
ONE_SEED = "one seed: the intervals are over test samples alone; a readout that is trained again can differ by more"
ABOUT = ("dataset", "task", "split", "neck", "head", "neck_loss")  # Fields that name a situation
NO_LIKELIHOODS = "no log-likelihoods are stored with these points"


@dataclass(frozen=True, slots=True)
class Coded:
    """Cost of specialization under one codec."""

    codec: str
    extra_rate_percent: Estimate  # at equal accuracy
    accuracy_at_equal_rate: Estimate
    n_points: int  # of the special encoder
    doubt: str  # warning that further training might undo the extra rate; empty if not


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of specialization for one task. `uncoded_general, uncoded_special`: the metric's value on uncoded features.
    `information_general, information_special`: usable information [bits per sample]."""

    dataset: str
    task: str
    metric: str
    higher_is_better: bool
    split: str  # SPECIAL less GENERAL if the encoders' split points have other names
    neck: str
    head: str
    neck_loss: str  # empty for trained heads
    general: str
    special: str
    n_samples: int
    seeds: tuple[int, ...]
    uncoded_general: Estimate
    uncoded_special: Estimate
    uncoded: Estimate  # their difference
    information_general: Estimate
    information_special: Estimate
    information: Estimate  # their difference; it needs no null model
    coded: tuple[Coded, ...]  # by codec


def verdict(difference: Estimate, higher_is_better: bool) -> str:
    """``cost`` or ``gain`` if the interval of a difference, special less general, excludes zero; otherwise "".

    >>> verdict(Estimate(3.0, 1.0, 5.0), higher_is_better=False)
    'cost'
    """
    if difference.low is None or difference.high is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return ""
    return "gain" if (difference.low > 0) == higher_is_better else "cost"


@dataclass(frozen=True, slots=True)
class Kept:
    """Usable information behind one operating point."""

    dataset: str
    task: str
    split: str
    neck: str
    head: str
    neck_loss: str
    encoder: str
    codec: str
    params: str
    sent: float  # bits sent per sample
    kept: Estimate  # usable bits per sample
    share: Estimate  # of the usable bits on uncoded features
    per_bit: float  # usable bits kept per bit sent


@dataclass(frozen=True, slots=True)
class Costs:
    """All costs of a results folder, the efficiency of its points, and notes, one line each."""

    costs: tuple[Cost, ...]
    efficiency: tuple[Kept, ...]
    notes: tuple[str, ...]


def places(of: Sequence[Cost | Kept], fields: Sequence[str] = ABOUT) -> list[str]:
    """What tells each situation from others of its task: those of the fields in which they differ."""
    n_tasks = len({one.task for one in of})
    differ = [f for f in fields if len({(one.task, getattr(one, f)) for one in of}) > n_tasks]
    return [", ".join(filter(None, (getattr(one, f) for f in differ))) for one in of]


def costs(
    rows: pd.DataFrame,
    general: str,
    special: str,
    x: str = "bpp",
    metric_values_of: MetricValuesOf = metric_values_of,
    n_resamples: int = N_RESAMPLES,
) -> Costs:
    """Costs of the special encoder in every situation in which both encoders were measured.

    `rows`: of `fcbench.analysis.situations.load`. `general, special`: encoders, as the rows name them; naming one twice
    checks that no difference is found. `x`: column of the rate. `metric_values_of`: metric values of a task's
    statistics; a task without them gets no intervals. Raises `FcbenchError`: an encoder that is in no row, shares no
    situation with the other, or has several weights or split points where one is needed.
    """
    for name in (general, special):
        if not (rows["encoder"] == name).any():
            raise FcbenchError(unknown("encoder", name, sorted(set(rows["encoder"]))))
    pair = Pair(general, special, x, metric_values_of, n_resamples)
    priced, kept = [], []
    for one in _situations(rows[rows["encoder"].isin((general, special))], pair):
        priced.append(pair.cost(one))
        kept += list(pair.efficiency(one))
    if not priced:
        raise FcbenchError(
            f"{general!r} and {special!r} share no task with the same data, neck and head; run both in one suite."
        )
    if any(len(c.seeds) == 1 for c in priced):
        pair.note(ONE_SEED)
    return Costs(tuple(priced), tuple(kept), tuple(pair.notes()))


def _situations(rows: pd.DataFrame, pair: Pair) -> Iterator[pd.DataFrame]:
    keys = [*SHARED, "split"]
    splits = [set(rows.loc[rows["encoder"] == e, "split"]) for e in pair.names]
    if not splits[0] & splits[1]:
        keys = list(SHARED)
        if max(map(len, splits)) > 1:
            raise FcbenchError(
                f"{pair.general} has the split points {', '.join(sorted(splits[0]))}, {pair.special} "
                f"{', '.join(sorted(splits[1]))}; give rows with one each, or with shared ones."
            )
    for _, one in rows[rows["primary"] | (rows["status"] != OK)].groupby(keys, sort=False, dropna=False):
        if set(one["encoder"]) < set(pair.names):
            continue
        for name in pair.names:
            weights = set(one.loc[one["encoder"] == name, "weights_sha256"])
            if len(weights) > 1:
                raise FcbenchError(f"{name} was measured with {len(weights)} different weights; give folders with one.")
        if (one["status"] == OK).any():
            yield one


class Pair:
    """A general and a special encoder, and how their rows are compared."""

    def __init__(self, general: str, special: str, x: str, metric_values_of: MetricValuesOf, n_resamples: int) -> None:
        self.general, self.special, self.names = general, special, (general, special)
        self._x, self._metric_values_of, self._n_resamples = x, metric_values_of, n_resamples
        self._bootstrap = Bootstrap(metric_values_of, n_resamples)
        self._notes: dict[str, None] = {}

    def note(self, line: str) -> None:
        """Keep a line, once."""
        self._notes[line] = None

    def notes(self) -> list[str]:
        """What could not be computed, one line each."""
        return [*self._bootstrap.notes(), *self._notes]

    # ----------------------------------------------------------------------------------- the three numbers
    def cost(self, rows: pd.DataFrame) -> Cost:
        """The cost in one situation."""
        ok = rows[rows["status"] == OK].iloc[0]
        ends = {e: _ceiling(rows, e) for e in self.names}
        uncoded = self._uncoded(ends, ok["task"], ok["metric"])
        bits = self._information(ends, ok["task"])
        names = (self.special, self.general)
        return Cost(
            dataset=ok["dataset"],
            task=ok["task"],
            metric=ok["metric"],
            higher_is_better=bool(ok["higher_is_better"]),
            split=" less ".join(dict.fromkeys(rows.loc[rows["encoder"] == e, "split"].iloc[0] for e in names)),
            neck=ok["neck"],
            head=ok["head"],
            neck_loss=ok["neck_loss"],
            general=self.general,
            special=self.special,
            n_samples=int(ok["n_samples"]),
            seeds=tuple(sorted(set(rows["seed"]))),
            uncoded_general=uncoded[0],
            uncoded_special=uncoded[1],
            uncoded=uncoded[2],
            information_general=bits[0],
            information_special=bits[1],
            information=bits[2],
            coded=tuple(self._coded(rows)),
        )

    def _uncoded(self, ends: dict[str, pd.DataFrame], task: str, metric: str) -> tuple[Estimate, Estimate, Estimate]:
        reason = _ends_refusal(ends)
        if reason:
            return (Estimate(reason=reason),) * 3
        values = [float(ends[e]["value"].mean()) for e in self.names]
        lines = [([points(ends[e])], True) for e in self.names]
        drawn = [d.values[0] for d in self._bootstrap.curves(lines, task, metric)]
        general, special, difference = (*drawn, drawn[1] - drawn[0]) if drawn else (None, None, None)
        return (estimate(values[0], general), estimate(values[1], special), estimate(values[1] - values[0], difference))

    def _coded(self, rows: pd.DataFrame) -> Iterator[Coded]:
        lines = rows[rows["kind"] == Kind.CODED]
        for label in dict.fromkeys(situations.codec_labels(lines)):
            one = lines[situations.codec_labels(lines) == label]
            compared = self._compared(one, str(label))
            if isinstance(compared, str):
                nothing = Estimate(reason=compared)
                yield Coded(str(label), nothing, nothing, 0, "")
                continue
            names = [f"{label} on {encoder}" for encoder in self.names]
            left = compared.anchor_left_percent, compared.left_percent
            doubt = open_ended.doubt(compared.bd_rate_percent.value, names[0], names[1], left)
            yield Coded(str(label), compared.bd_rate_percent, compared.bd_accuracy, compared.n_points, doubt)

    def _compared(self, rows: pd.DataFrame, label: str) -> compare.Comparison | str:
        missing = [e for e in self.names if not (rows["encoder"] == e).any()]
        if missing:
            return f"{missing[0]} was not measured with {label}"
        # the same encoder twice: a copy under another name
        general, special = (rows[rows["encoder"] == e] for e in self.names)
        roles = [general.assign(codec="general"), special.assign(codec="special")]
        same = {c: label for c in ENCODER} | {"objective": "", "weights_origin": ""}
        both = pd.concat(roles, ignore_index=True).assign(**same)
        metric = both.loc[both["status"] == OK, "metric"]
        if metric.empty:
            return f"all points failed: {both['status'].iloc[0]}"
        comparisons, notes = compare.compare(
            both, "general", [metric.iloc[0]], self._x, self._metric_values_of, self._n_resamples
        )
        self._notes |= dict.fromkeys(notes)
        return next(c for c in comparisons if c.codec == "special")

    def _information(self, ends: dict[str, pd.DataFrame], task: str) -> tuple[Estimate, Estimate, Estimate]:
        """Usable information of general and special, and their difference [bits per sample]."""
        reason = _ends_refusal(ends)
        if reason:
            return (Estimate(reason=reason),) * 3
        likelihoods = [self.likelihoods(ends[e], task) for e in self.names]
        if likelihoods[0] is None or likelihoods[1] is None:
            return (Estimate(reason=NO_LIKELIHOODS),) * 3
        if likelihoods[0].ids != likelihoods[1].ids:
            return (Estimate(reason="the encoders' points hold different samples"),) * 3
        base = _null([g for g in likelihoods if g])
        general, special = likelihoods[0].log_likelihoods, likelihoods[1].log_likelihoods
        difference = information.bits_between(special, general, self._n_resamples)
        if base is None:
            nothing = Estimate(reason="no null model was written with the ceilings")
            return nothing, nothing, difference
        first, second = (information.bits_between(of, base, self._n_resamples) for of in (general, special))
        return first, second, difference

    def likelihoods(self, rows: pd.DataFrame, task: str) -> Likelihoods | None:
        """Likelihoods of one operating point with all its seeds."""
        of_point = bootstrap.likelihoods(points(rows))
        if of_point is None:
            self.note(f"{task}: {NO_LIKELIHOODS}, so usable information is left out")
        return of_point

    # -------------------------------------------------------------------------------------- efficiency
    def efficiency(self, rows: pd.DataFrame) -> Iterator[Kept]:
        """Usable information kept at each operating point of both encoders, in order of rate."""
        task = rows["task"].iloc[0]
        ends = {e: _ceiling(rows, e) for e in dict.fromkeys(self.names)}
        tops = {e: self.likelihoods(r, task) for e, r in ends.items() if len(r)}
        base = _null([t for t in tops.values() if t is not None])
        coded = rows[rows["kind"] == Kind.CODED]
        coded = coded.assign(label=situations.codec_labels(coded))
        for encoder, top in tops.items():
            if top is None or base is None or top.log_likelihoods.shape != base.shape:
                continue
            lines = coded[(coded["encoder"] == encoder) & situations.measured(coded, self._x)]
            by_point = [p for _, p in lines.groupby(["label", "params"], sort=False)]
            for point in sorted(by_point, key=lambda p: float(p["bpp"].mean())):
                yield from self._kept(point.sort_values("seed"), top, base)

    def _kept(self, rows: pd.DataFrame, top: Likelihoods, base: np.ndarray) -> Iterator[Kept]:
        first = rows.iloc[0]
        likelihoods = self.likelihoods(rows, first["task"])
        if likelihoods is None or likelihoods.ids != top.ids or likelihoods.log_likelihoods.shape != base.shape:
            return
        kept = information.bits_between(likelihoods.log_likelihoods, base, self._n_resamples)
        if (top.log_likelihoods - base).mean() > 0:
            share = information.share_kept(likelihoods.log_likelihoods, top.log_likelihoods, base, self._n_resamples)
        else:
            share = Estimate(reason="the uncoded features hold no usable information")
        sent = 8 * float(rows["bytes_per_sample"].mean())
        about = {name: first[name] for name in (*ABOUT, "encoder", "params")}
        per_bit = (kept.value or 0.0) / sent
        yield Kept(**about, codec=first["label"], sent=sent, kept=kept, share=share, per_bit=per_bit)


def _null(likelihoods: list[Likelihoods]) -> np.ndarray | None:
    """The best null model of several points: [seeds, N] nats."""
    nulls = [p.null for p in likelihoods if p.null is not None]
    return information.best_null(nulls) if nulls else None


def _ceiling(rows: pd.DataFrame, encoder: str) -> pd.DataFrame:
    ceilings = rows[(rows["encoder"] == encoder) & (rows["kind"] == Kind.CEILING)]
    good = ceilings[(ceilings["status"] == OK) & np.isfinite(ceilings["value"])]
    return good.sort_values("seed")


def _ends_refusal(ends: dict[str, pd.DataFrame]) -> str:
    """Why two ceilings cannot be compared; empty if they can."""
    for encoder, rows in ends.items():
        if rows.empty:
            return f"no uncoded ceiling of {encoder} was measured"
    seeds = {e: ", ".join(map(str, r["seed"])) for e, r in ends.items()}
    if len(set(seeds.values())) > 1:
        return "; ".join(f"{e} has seeds {s}" for e, s in seeds.items())
    return ""


def frame(costs: Costs) -> pd.DataFrame:
    """One number per row: its name, unit, value and interval, or the reason why it is missing."""
    words = [*ABOUT, *"general special encoder codec params".split()]
    columns = [*words, *"n_samples sent_bits figure unit value low high reason doubt".split()]
    table = pd.DataFrame(_records(costs), columns=columns).astype({"n_samples": "Int64"})
    return table.fillna(dict.fromkeys([*words, "unit", "doubt"], ""))


def _records(costs: Costs) -> Iterator[dict[str, Any]]:
    for c in costs.costs:
        about = {k: getattr(c, k) for k in (*ABOUT, "general", "special", "n_samples")}
        for name in ("uncoded", "information"):
            unit = c.metric if name == "uncoded" else "bit/sample"
            for of, attribute in (("general", f"{name}_general"), ("special", f"{name}_special"), ("difference", name)):
                yield about | {"figure": f"{name}_{of}", "unit": unit} | asdict(getattr(c, attribute))
        for k in c.coded:
            of_codec = about | {"codec": k.codec, "doubt": k.doubt}
            yield of_codec | {"figure": "extra_rate_at_equal_accuracy", "unit": "percent"} | asdict(
                k.extra_rate_percent
            )
            yield of_codec | {"figure": "accuracy_at_equal_rate", "unit": c.metric} | asdict(k.accuracy_at_equal_rate)
    for e in costs.efficiency:
        about = {c: getattr(e, c) for c in (*ABOUT, "encoder", "codec", "params")}
        about["sent_bits"] = e.sent
        yield about | {"figure": "information_kept", "unit": "bit/sample"} | asdict(e.kept)
        yield about | {"figure": "share_kept"} | asdict(e.share)
        yield about | {"figure": "kept_per_bit_sent"} | asdict(Estimate(e.per_bit))
