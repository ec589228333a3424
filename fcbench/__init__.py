"""fcbench: rate-task-accuracy curves of coded vision features, and what an encoder's specialization costs in bits.

    import fcbench

    results = fcbench.run(quick=True, out="runs/look")    # or fcbench.load("runs/look")
    fcbench.compare(results, anchor="uniform")
    fcbench.plot(results, "curves.png")

Everything is imported when first used; torch only when something is measured.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from fcbench.analysis.results import Results, compare, cost, load
    from fcbench.core.errors import FcbenchError
    from fcbench.measure.suite import Suite
    from fcbench.training.options import Budget

__version__ = "0.2.0"
__all__ = ["Budget", "FcbenchError", "Results", "Suite", "compare", "cost", "load", "plot", "run"]

_LAZY = {
    "Budget": "fcbench.training.options",
    "FcbenchError": "fcbench.core.errors",
    "Results": "fcbench.analysis.results",
    "Suite": "fcbench.measure.suite",
    "compare": "fcbench.analysis.results",
    "cost": "fcbench.analysis.results",
    "load": "fcbench.analysis.results",
}


if not TYPE_CHECKING:  # type checkers then refuse unknown names

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def run(
    suite: Suite | None = None,
    *,
    out: Path | str = "runs/default",
    cache_dir: Path | str | None = None,
    device: str = "auto",
    quick: bool = False,
    keep_streams: bool = False,
    **options: Any,
) -> Results:
    """Measure the points of a suite that a results folder lacks, and load the folder.

    A failed point becomes a row with its reason, and a warning; the others are still measured. `suite`: what to
    measure; None for the default suite. `out`: results folder; a run resumes in it. `cache_dir`: rendered scenes,
    features, trained necks, heads and codecs; None for `FCBENCH_CACHE` or the user's cache. `device`: ``cpu``,
    ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes a GPU if there is one. `quick`: train briefly on few samples: a trial
    run, not to be quoted. `keep_streams`: keep the ``.fcb`` files under ``out/streams``. `options`: fields of `Suite`
    to change, such as ``tasks=["depth"]`` or ``seeds=[0, 1]``. Raises `FcbenchError`: bad input, or a folder or device
    that cannot be used.
    """
    import os
    import warnings
    from dataclasses import replace
    from pathlib import Path

    from platformdirs import user_cache_path

    from fcbench.analysis.results import load
    from fcbench.measure.run import measure
    from fcbench.measure.study import device_of, open_study
    from fcbench.measure.suite import Suite

    suite = suite or Suite()
    suite = suite.quick() if quick else suite
    suite = replace(suite, **options)
    cache = Path(cache_dir or os.environ.get("FCBENCH_CACHE") or user_cache_path("fcbench"))
    study = open_study(suite.with_files().runnable(warnings.warn), cache, device_of(device))
    summary = measure(study, Path(out), keep_streams=keep_streams)
    if summary.failures:
        warnings.warn(f"{len(summary.failures)} jobs failed, first: {summary.failures[0]}", stacklevel=2)
    return load(out)


def plot(
    results: Results,
    file: Path | str | None = None,
    *,
    x: str = "bpp",
    metric: str | None = None,
    tasks: Sequence[str] = (),
    encoders: Sequence[str] = (),
    codecs: Sequence[str] = (),
    anchors: Sequence[str] = (),
    grid: bool | None = None,
) -> Figure:
    """Draw rate-accuracy curves.

    `file`: where to save the figure: .png, .svg or .pdf. `x`: unit of the rate: bpp, bpfp, bytes_per_sample or
    bpp_content. `metric`: None for each task's primary one. `tasks, encoders, codecs`: what to draw; all if empty.
    `anchors`: codecs to draw in grey; ``remote`` for all image coders. `grid`: one panel per task and encoder, or all
    encoders together; None decides by the number of curves. Raises `FcbenchError`: a name that is in no row, no coded
    points, or more curves than can be told apart.
    """
    from fcbench.analysis.situations import choose, choose_codecs
    from fcbench.reports.curves_figure import figure
    from fcbench.reports.style import save

    rows = choose(choose(results.rates, "task", tasks), "encoder", encoders)
    drawn = figure(choose_codecs(rows, codecs), x, metric, anchors=anchors, grid=grid)
    if file is not None:
        save(drawn, file)
    return drawn
