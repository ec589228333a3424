"""Results folders as one object: rows, samples, provenance, and analyses of them."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.analysis import compare as comparing
from fcbench.analysis import cost as costing
from fcbench.analysis import situations
from fcbench.analysis.published import add
from fcbench.analysis.variants import FOLDER
from fcbench.core.errors import FcbenchError
from fcbench.results.folder import PROVENANCE, load_provenance
from fcbench.results.row import OK
from fcbench.results.samples import has_samples, load_samples


class Results:
    """Contents of one or several results folders. `rates`: the rows of rates.csv, with their results folder in the
    column ``folder``; each measured point once."""

    def __init__(self, folders: Sequence[Path], rates: pd.DataFrame) -> None:
        self.folders = tuple(folders)
        self.rates = rates

    def __repr__(self) -> str:
        return f"Results({', '.join(map(str, self.folders))}: {len(self.rates)} rows)"

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Samples, one row per sample and point: folder, point, sample, n_bytes, stats [S], log_likelihood and
        feature_error (or NaN)."""
        measured = self.rates[self.rates["status"] == OK]
        keys = measured[[FOLDER, "point"]].drop_duplicates().itertuples(index=False, name=None)
        parts = [_samples(folder, point) for folder, point in keys if has_samples(Path(folder), point)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_SAMPLE_COLUMNS))

    @cached_property
    def provenance(self) -> list[dict[str, Any]]:
        """Records of the runs that wrote the folders, each with its ``folder``; empty if a folder has none."""
        return [
            {FOLDER: str(folder), **run}
            for folder in self.folders
            if (folder / PROVENANCE).exists()
            for run in load_provenance(folder)
        ]


_SAMPLE_COLUMNS = (FOLDER, "point", "sample", "n_bytes", "log_likelihood", "feature_error", "stats")


def _samples(folder: str, point: str) -> pd.DataFrame:
    table = load_samples(folder, point)
    optional = {name: getattr(table, name) for name in ("log_likelihood", "feature_error")}
    return pd.DataFrame(
        {
            FOLDER: folder,
            "point": point,
            "sample": list(table.ids),
            "n_bytes": pd.array(list(table.n_bytes), dtype="Int64"),
            **{name: float("nan") if values is None else values for name, values in optional.items()},
            "stats": list(table.stats),
        }
    )


def load(*folders: Path | str, by: str | None = None, published: Sequence[Path | str] = ()) -> Results:
    """Read results folders, several of them together if they are comparable.

    `by`: commit, budget, machine, versions or folder: runs that differ in it are kept apart, with one curve per codec
    and run. `published`: files of curves that others published (`fcbench.analysis.published`): rows of kind
    ``published``. Raises `FcbenchError`: no folder; see also `fcbench.analysis.situations.load` and `published.add`.
    """
    if not folders:
        raise FcbenchError("no results folder to load; give one that `fcbench run --out` wrote.")
    paths = [Path(f) for f in folders]
    return Results(paths, add(situations.load(paths, by), [Path(f) for f in published]))


def compare(results: Results, anchor: str | None = None, metric: str | None = None, x: str = "bpp") -> pd.DataFrame:
    """Compare every curve with the anchor's, one per row: BD-rate, BD-accuracy, rate at the ceiling less 1 %.

    A number NAME has its 95 % interval in NAME_low and NAME_high; if it is NaN, NAME_reason says why. What intervals
    lack is in ``attrs["notes"]``. `anchor`: a codec; or ``remote``, the best of the image codecs. None if runs are kept
    apart (`load`): each codec is compared with itself in the first run. `metric`: None for each task's primary one;
    ``all`` for every one. `x`: unit of the rate: bpp, bpfp, bytes_per_sample or bpp_content. Raises `FcbenchError`: see
    `fcbench.analysis.compare.compare`.
    """
    comparisons, notes = comparing.compare(results.rates, anchor, () if metric is None else (metric,), x)
    return _noted(comparing.frame(comparisons), notes)


def cost(results: Results, general: str, special: str, x: str = "bpp") -> pd.DataFrame:
    """Cost of the special encoder against the general one, one number per row: figure, unit, value, low, high, reason.

    Differences are special less general. What intervals lack is in ``attrs["notes"]``. `general, special`: encoders, as
    ``rates`` names them. `x`: unit of the rate: bpp, bpfp, bytes_per_sample or bpp_content. Raises `FcbenchError`: see
    `fcbench.analysis.cost.costs`.
    """
    costs = costing.costs(results.rates, general, special, x)
    return _noted(costing.frame(costs), costs.notes)


def _noted(frame: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    frame.attrs["notes"] = list(notes)
    return frame
