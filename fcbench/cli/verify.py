"""Check that results folders hold what they claim, and sign those that do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fcbench.cli.options import cache_option, results_argument, trust_option
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError

if TYPE_CHECKING:
    from fcbench.results.checks import Checks, Fault

MAX_SHOWN = 20


@click.command("verify")
@results_argument
@click.option(
    "--sign",
    is_flag=True,
    help="Write the sha256 of every file of a folder that passes, and one hash over all, into its provenance.json. "
    "Later checks name each file that changed. A hash, not a person's signature: publish it beside your table, so that "
    "others can compare.",
)
@trust_option
@cache_option
def verify(results: tuple[Path, ...], sign: bool, trust: bool, cache_dir: Path) -> None:
    """Recompute what results folders claim, from what they hold: rates from the bytes of files, their parts and
    samples; values and intervals from the statistics of samples; and, with --keep-streams, sizes from the .fcb files,
    coded integers, images and labels by decoding them, and feature errors where --cache-dir holds the features. Rows of
    one file must agree; each names its run and commit. Says what could not be checked. Exit status 1 if anything does
    not hold.

    A signed folder is compared with its signature. Whatever is written into it afterwards (a longer run, a report, a
    figure) counts as a change: check and sign again. Sign what you publish: files that you leave out are missed, too.

    \b
    Examples:
      fcbench verify runs/default
      fcbench verify --sign runs/default
    """
    n_faulty, n_unchecked = 0, 0
    for folder in results:
        try:
            checks, signature = _check(folder, cache_dir, sign, trust)
        except FcbenchError as error:
            say(f"{folder}: cannot be checked: {error}")
            n_unchecked += 1
            continue
        if checks.faults:
            say(_table(folder, checks.faults), nl=False, err=True)
        say(f"{folder}: {_line(checks)}; {signature}")
        n_faulty += bool(checks.faults)
    failed = {"do not hold what they claim": n_faulty, "cannot be checked": n_unchecked}
    if any(failed.values()):
        raise FcbenchError("; ".join(f"{n} of {len(results)} folders {what}" for what, n in failed.items() if n))


def _check(folder: Path, cache_dir: Path, sign: bool, trust: bool) -> tuple[Checks, str]:
    """What was found in a folder, and about its signature."""
    from fcbench.analysis.verify import verify as recompute
    from fcbench.core.cache import Cache
    from fcbench.core.progress import Report
    from fcbench.measure import kept
    from fcbench.results import signing

    checks = recompute(folder)
    with Report(1) as report, report.part(f"{folder}: decoding streams") as advance:
        kept.check(folder, Cache(cache_dir), checks, advance, trust)
    if not sign:
        return checks, signing.check(folder, checks)
    return checks, "not signed" if checks.faults else f"signed: sha256 {signing.sign(folder)}"


def _line(checks: Checks) -> str:
    """Result and extent of a check."""
    n = len(checks.faults)
    result = f"{n} fault{'s' * (n > 1)}" if n else "holds what it claims"
    done, left = (", ".join(f"{n} {what}" for what, n in counts.items()) for counts in (checks.done, checks.left))
    return f"{result}; checked {done or 'nothing'}" + (f"; not checked: {left}" if left else "")


def _table(folder: Path, faults: Sequence[Fault]) -> str:
    import pandas as pd

    from fcbench.reports.tables import Document, Table, terminal

    rows = [[fault.file, fault.row, fault.what] for fault in faults[:MAX_SHOWN]]
    table = Table(str(folder), ("file", "row", "fault"), rows, n_left=3)
    more = [f"and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
    return terminal(Document([table], "faults", pd.DataFrame(), notes=more))


COMMAND = verify
