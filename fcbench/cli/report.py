"""Write a page of results: curves, comparisons, costs, provenance, in one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from fcbench.cli.options import check_outputs, overwrite_option, published_option, results_argument
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically


@click.command("report")
@results_argument
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.html")
@click.option("--title", metavar="TEXT", help="Heading of the page. [the folders' names]")
@click.option(
    "--each",
    is_flag=True,
    help="One set per results folder at or below RESULTS, chosen on the page; without it, folders are "
    "read together.",
)
@click.option(
    "--gallery",
    is_flag=True,
    help="A small page instead, with links to and pictures of every results folder at or below RESULTS.",
)
@published_option
@overwrite_option
def report(
    results: tuple[Path, ...],
    output: Path,
    title: str | None,
    each: bool,
    gallery: bool,
    published: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Write one HTML file that opens without a network: curves with their numbers, comparisons with every codec as the
    anchor, the cost of specialization and coding, cautions, and the origin of all of it. Runs nothing.

    \b
    Examples:
      fcbench report runs/default -o runs/default/report.html
      fcbench report results --each -o all.html
      fcbench report results --gallery -o results/index.html --overwrite
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise FcbenchError(f"cannot write a page to {output.name!r}; its suffix must be .html.")
    if each and gallery:
        raise FcbenchError("--each and --gallery are different kinds of page: give one of them")
    if (each or gallery) and published:
        raise FcbenchError(
            f"got --{'each' if each else 'gallery'} with --published; published curves go with one set of results."
        )
    folders = _below(results) if each or gallery else list(results)
    check_outputs([output], [*folders, *published], overwrite)
    if gallery:
        _write_gallery(folders, output, title)
        return
    sets = [[folder] for folder in folders] if each else [folders]
    write(sets, output, title, published)


def write(
    sets: list[list[Path]],
    output: Path,
    title: str | None = None,
    published: Sequence[Path] = (),
    tell: Callable[[object], None] = say,
) -> None:
    """Write the page of sets of results folders, each set read together, with published curves; print its path."""
    from fcbench.analysis.results import load
    from fcbench.reports.page import contents, html

    shown = [", ".join(map(str, folders)) for folders in sets]
    sections = [
        contents.contents(load(*folders, published=published), name) | {"links": contents.links(folders, output)}
        for folders, name in zip(sets, shown)
    ]
    text = html.page(title or (shown[0] if len(shown) == 1 else "fcbench results"), sections, _made())
    write_atomically(output, text, "choose another -o")
    tell(output)


def _write_gallery(folders: list[Path], output: Path, title: str | None) -> None:
    from fcbench.analysis.results import load
    from fcbench.reports.page import gallery

    text = gallery.page(title or "fcbench results", [(f, load(f).rates) for f in folders], output, _made())
    write_atomically(output, text, "choose another -o")
    say(output)


def _made() -> str:
    """Version and time for the footer of a page."""
    from fcbench import __version__
    from fcbench.results.provenance import commit, utc_now

    return f"fcbench {__version__} {commit()}, {utc_now()}"


def _below(paths: tuple[Path, ...]) -> list[Path]:
    """Results folders at or below paths, in order of their names. Raises `FcbenchError`: there is none below one."""
    from fcbench.results.table import RATES

    folders_below: list[Path] = []
    for path in paths:
        folders = sorted(file.parent for file in path.rglob(RATES))
        if not folders:
            raise FcbenchError(f"no {RATES} at or below {path}; give folders that `fcbench run --out` wrote.")
        folders_below += folders
    return list(dict.fromkeys(folders_below))


COMMAND = report
