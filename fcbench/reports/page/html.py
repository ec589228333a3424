"""One self-contained HTML file: data, style, program and the plotting library. It needs no network.

The library is Vega-Lite from `vl-convert-python`. Measured with eight panels of twelve curves each, in headless
Chromium, on a busy machine with two cores: 0.9 MB and 0.6 s until all are drawn; plotly.py 4.8 MB and 2.5 s, plotly's
basic bundle 1.2 MB and 1.1 s, Bokeh 1.4 MB and 1.9 s. (uPlot, 0.05 MB and 0.1 s, draws on a canvas, with dots as its
only markers and nothing for screen readers, and no package contains it.)

Text from files is data: it is inserted as ``textContent``, never as markup, and a policy in the page's head allows only
its own two programs to run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from fcbench.core.errors import FcbenchError

PROGRAM = ("tables.js", "curves.js", "samples.js", "page.js")
_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def page(title: str, sets: Sequence[dict[str, Any]], made: str) -> str:
    """The page of one or several sets of results; the reader chooses among them.

    Args:
        sets: of `fcbench.reports.page.contents.contents`.
        made: version and time.

    Raises:
        FcbenchError: the plotting library is not installed.
    """
    scripts = [_library(), "".join(map(_asset, PROGRAM))]
    data = json.dumps({"sets": list(sets)}, separators=(",", ":"), allow_nan=False).translate(_ESCAPED)
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        made=escape(made),
        policy=" ".join(f"'{_digest(s)}'" for s in scripts),
        style=_asset("page.css"),
        data=data,
        library=scripts[0],
        program=scripts[1],
    )


def _asset(name: str) -> str:
    return files("fcbench.reports.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega-Lite and its dependencies as a script that sets ``vegaEmbed``. Made without a network."""
    try:
        import vl_convert
    except ImportError:
        raise FcbenchError("the report needs Vega-Lite: pip install vl-convert-python") from None
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _digest(script: str) -> str:
    """Digest of a script as a content security policy states it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
