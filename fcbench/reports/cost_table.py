"""Costs of specialization as tables."""

from collections.abc import Sequence

from fcbench.analysis.cost import Cost, Costs, frame, places, verdict
from fcbench.analysis.estimate import Estimate
from fcbench.reports.tables import Document, Notes, Table

LEGEND = (
    "Differences: special less general, with 95 % intervals (paired bootstrap over the test samples, and over seeds). "
    "Extra bits: mean extra rate at equal accuracy (BD-rate); accuracy: mean difference at equal rate (BD-accuracy). "
    "Usable bits: I_V(features -> target) per image, by readouts and a null model of one family. "
    "Cost or gain: if the interval excludes zero."
)
HEADER = ("task", "figure", "general", "special", "difference", "")
KEPT_HEADER = ("task", "encoder", "codec", "bits sent", "usable bits kept", "share", "kept per bit sent")
N_WORDS = 2  # Number of first columns that hold words


def document(costs: Costs) -> Document:
    """One table of costs per situation, then one of the efficiency."""
    groups: dict[str, list[Cost]] = {}
    for c, place in zip(costs.costs, places(costs.costs, ("split", "neck_loss"))):
        seeds = ", ".join(map(str, c.seeds))
        where = f"{c.dataset}, {c.n_samples} images, {c.neck}, {c.head} head" + (place and f", {place}")
        groups.setdefault(f"{c.special} less {c.general}; {where}, seed {seeds}", []).append(c)
    tables = [_costs(title, group) for title, group in groups.items()]
    tables += [_efficiency(costs)] if costs.efficiency else []
    return Document(tables, "figures", frame(costs), LEGEND, costs.notes)


def _costs(title: str, group: Sequence[Cost]) -> Table:
    notes, rows, empty = Notes(), [], Estimate()
    for c in group:
        better, name = c.higher_is_better, c.metric
        lines = [
            (name + " uncoded", c.uncoded, "+.4f", better, c.uncoded_general, c.uncoded_special, ""),
            ("usable bits uncoded", c.information, "+.1f", True, c.information_general, c.information_special, ""),
        ]
        for k in c.coded:
            extra = f"extra bits at equal {name} (%), {k.codec}"
            lines += [
                (extra, k.extra_rate_percent, "+.1f", False, empty, empty, k.doubt),
                (f"{name} at equal bits, {k.codec}", k.accuracy_at_equal_rate, "+.4f", better, empty, empty, k.doubt),
            ]
        for i, (what, difference, form, up, general, special, doubt) in enumerate(lines):
            task = c.task + ("" if better else " (lower is better)") if i == 0 else ""
            ends = ["" if v.value is None else f"{v.value:.4g}" for v in (general, special)]
            said = verdict(difference, up)
            rows.append([task, what, *ends, notes.cell(difference, form), said + notes.mark(said and doubt)])
    return Table(title, HEADER, rows, notes.lines, N_WORDS)


def _efficiency(costs: Costs) -> Table:
    notes, rows = Notes(), []
    for k, place in zip(costs.efficiency, places(costs.efficiency)):
        kept, share = notes.cell(k.kept, ".1f"), notes.cell(k.share, ".3f")
        words = [k.task + (place and f", {place}"), k.encoder, f"{k.codec} {k.params}"]
        rows.append([*words, f"{k.sent:.0f}", kept, share, f"{k.per_bit:.4g}"])
    title = "Efficiency: usable bits per image behind each operating point"
    return Table(title, KEPT_HEADER, rows, notes.lines, N_WORDS)
