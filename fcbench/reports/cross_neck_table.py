"""The matrices of a cross-neck analysis as tables."""

from collections.abc import Sequence

from fcbench.analysis.cross_neck import DEEP, DIRECT, BottleneckPosition, Entry, Matrices, frame
from fcbench.analysis.estimate import Estimate
from fcbench.reports.tables import Document, Table, shown

POSITIONS_HEADER = ("encoder", "chain", "metric", "codec", "extra bits (%)", "accuracy at equal bits")
MATRICES = (
    ("value", ".4g", "value"),
    ("ratio to the direct neck", ".3f", "ratio"),
    ("usable bits per image", ".1f", "information"),
    ("usable bits per image lost against the direct neck", ".1f", "lost"),
)
"""Title, format and field of `Entry` of each matrix."""


def document(matrices: Matrices) -> Document:
    """Matrices of each encoder (rows: necks that the features pass through; columns: tasks), then where to code."""
    tables = []
    for encoder in dict.fromkeys(e.encoder for e in matrices.entries):
        entries = [e for e in matrices.entries if e.encoder == encoder]
        tables += [_matrix(f"{encoder}: {title}", entries, of, form) for title, form, of in MATRICES]
    tables += [_positions(matrices.positions)] if matrices.positions else []
    return Document(tables, "figures", frame(matrices), notes=matrices.notes)


def _matrix(title: str, entries: Sequence[Entry], of: str, form: str) -> Table:
    tasks: dict[str, str] = {}
    for e in entries:
        tasks.setdefault(e.chain.task, e.metric)
    rows = []
    for name in matrix_rows(entries):
        of_row = {e.chain.task: e for e in entries if path_label(e) == name}
        cells = [shown(getattr(of_row[t], of), form) if t in of_row else "" for t in tasks]
        rows.append([name, *cells])
    header = ("through", *(f"{t} ({metric})" for t, metric in tasks.items()))
    return Table(title, header, rows)


def _positions(positions: Sequence[BottleneckPosition]) -> Table:
    def cell(number: Estimate, form: str) -> str:
        return number.reason if number.value is None else shown(number, form)

    rows = [
        [p.encoder, p.chain.name, p.metric, p.codec]
        + [cell(p.extra_rate_percent, "+.1f"), cell(p.accuracy_at_equal_rate, "+.4f")]
        for p in positions
    ]
    title = "Coded between the necks, less coded before the first"
    return Table(title, POSITIONS_HEADER, rows, n_left=len(POSITIONS_HEADER))


def path_label(entry: Entry) -> str:
    """The necks before the task's own neck: the label of a matrix row."""
    if entry.kind == DIRECT:
        return "nothing (direct)"
    if entry.kind == DEEP:
        return f"nothing ({entry.chain.neck})"
    return " > ".join(entry.chain.before)


def matrix_rows(entries: Sequence[Entry]) -> list[str]:
    """Rows of a matrix: direct necks, then one level of adaptation, then two, each in the order of the tasks."""
    before = [task for e in entries for task in e.chain.before]
    tasks = list(dict.fromkeys([*(e.chain.task for e in entries), *before]))

    def rank(e: Entry) -> tuple[int, bool, list[int], str]:
        order = [tasks.index(t) for t in e.chain.before]
        return len(order), e.kind == DEEP, order, e.chain.neck

    return list(dict.fromkeys(path_label(e) for e in sorted(entries, key=rank)))
