"""Overview of many results folders: one small page with a link, a summary and a picture for each. No script."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import pandas as pd

from fcbench.analysis import situations
from fcbench.core.codecs import Kind
from fcbench.reports.page import cautions
from fcbench.results.row import OK

FILES = ("report.html", "compare.md", "README.md", "cost.md", "rates.csv", "provenance.json")
"""Files that a folder's row links to, if they exist."""
PICTURE = "curves.png"
_HEADER = ("folder", "data set", "encoders", "tasks", "codecs", "points", "measured", "commit", "cautions")

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
  img-src 'self' file:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style
figure { margin: 0; }
figure img { max-width: 100%; background: #fff; }
td.words, th.words { white-space: normal; vertical-align: top; }
td.fixed { white-space: nowrap; }
small { font-weight: normal; }
td.warned { color: var(--red); min-width: 12rem; overflow-wrap: anywhere; }
@media (max-width: 88rem) {
  table, tbody, caption { display: block; }
  thead { display: none; }
  tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 0 1rem;
    border: 1px solid var(--line); border-radius: 4px; padding: .3rem .6rem; margin: .5rem 0; }
  th.words, td.words { border: 0; padding: .1rem 0; overflow-wrap: anywhere; white-space: normal; }
  th.words, td.warned { grid-column: 1 / -1; }
  td::before { content: attr(data-name) ": "; color: var(--quiet); }
  td:empty { display: none; }
}</style>
</head>
<body>
<h1>$title</h1>
<p class="quiet">$made</p>
<div class="scroll" tabindex="0" role="group" aria-label="Results folders"><table role="table">
<caption>Results folders</caption>
<thead><tr>$header</tr></thead>
<tbody>
$rows
</tbody></table></div>
<h2>Curves</h2>
<div id="panels">
$figures
</div>
</body>
</html>
""")


def page(title: str, folders: Sequence[tuple[Path, pd.DataFrame]], output: Path, made: str) -> str:
    """The overview of results folders.

    Args:
        folders: each with its rows.
        output: file of the page; links are relative to it.
        made: version and time.
    """
    lines = [f"<tr role='row'>{''.join(_cells(folder, rows, output.parent))}</tr>" for folder, rows in folders]
    return _PAGE.substitute(
        title=escape(title),
        style=files("fcbench.reports.page").joinpath("page.css").read_text(encoding="utf-8"),
        made=escape(made),
        header="".join(f'<th scope="col" class="words">{name}</th>' for name in _HEADER),
        rows="\n".join(lines),
        figures="\n".join(_figure(folder, output.parent) for folder, _ in folders if (folder / PICTURE).exists()),
    )


def _cells(folder: Path, rows: pd.DataFrame, start: Path) -> Iterator[str]:
    """A folder's summary as table cells."""
    rows = rows.assign(codec_label=situations.codec_labels(rows))
    ok = rows[rows["status"] == OK]
    coded = ok[ok["kind"].isin([Kind.CODED, Kind.REMOTE, Kind.LABEL])]
    warned = [c["text"] for c in cautions.cautions(rows) if c["level"] == "red"]
    links = " ".join(_link(folder / name, start, name) for name in FILES if (folder / name).exists())
    yield f'<th scope="row" role="rowheader" class="words">{escape(_way(folder, start))}<br><small>{links}</small></th>'
    texts = [
        *(_names(ok[column]) for column in ("dataset", "encoder", "task")),
        _names(coded["codec_label"]),
        str(ok["point"].nunique()),
        str(ok["utc"].max())[:10],
        _names(ok["commit"].str[:8], most=3),
        " ".join(warned),
    ]
    kinds = {"measured": " fixed", "cautions": " warned"}
    for name, text in zip(_HEADER[1:], texts, strict=True):
        yield f'<td role="cell" data-name="{name}" class="words{kinds.get(name, "")}">{escape(text)}</td>'


def _figure(folder: Path, start: Path) -> str:
    way = escape(_way(folder, start), quote=True)
    return (
        f'<figure class="panel"><figcaption><h3>{way}</h3></figcaption><a href="{way}/{PICTURE}">'
        f'<img loading="lazy" src="{way}/{PICTURE}" alt="rate-accuracy curves of {way}"></a></figure>'
    )


def _link(file: Path, start: Path, name: str) -> str:
    return f'<a href="{escape(_way(file, start), quote=True)}">{escape(name)}</a>'


def _way(path: Path, start: Path) -> str:
    """Relative path for a link."""
    return Path(os.path.relpath(path, start)).as_posix()


def _names(column: pd.Series, most: int = 6) -> str:
    """Distinct values in order; with the number of the remaining ones if there are many."""
    names = [str(n) for n in dict.fromkeys(column) if n]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
