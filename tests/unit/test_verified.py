"""`fcbench list` says what was verified of a plug-in, and the rows that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import fcbench
from fcbench.cli.main import main
from fcbench.core import registry
from fcbench.core.verified import VERIFIED
from fcbench.features.encoding import build_encoder
from fcbench.results import table

ROOT = Path(fcbench.__file__).resolve().parents[1]
COLUMN = {"encoder": "encoder", "codec": "codec", "image": "codec", "dataset": "dataset", "taskmodel": "head"}


@pytest.mark.parametrize("kind", list(VERIFIED))
def test_every_built_in_plugin_has_a_line(kind: str) -> None:
    assert set(VERIFIED[kind]) == set(registry.built_in(kind))
    shown = CliRunner().invoke(main, ["list", f"{kind}s"]).output
    assert shown.count("  verified: ") == len(VERIFIED[kind])


def test_encoders_say_which_tails_they_have() -> None:
    shown = " ".join(CliRunner().invoke(main, ["list", "encoders"]).output.split())
    assert "Tails: classification, after every stage" in shown and "Tails: detection" in shown
    for name in ("timm:test_resnet", "hiera_nano"):
        tails = getattr(build_encoder(name, "random" if ":" in name else None, torch.device("cpu")), "tails", {})
        assert bool(registry.tails("encoder", name.partition(":")[0])) == bool(tails)


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="needs the source tree")
@pytest.mark.parametrize("kind", list(VERIFIED))
def test_rows_are_where_it_says(kind: str) -> None:
    cells: dict[str, set[str]] = {}
    for path in (ROOT / "results").rglob("rates.csv"):
        rows = table.load(path.parent)
        folder = path.parent.relative_to(ROOT / "results").parts[0]
        cells.setdefault(folder, set()).update(rows.loc[rows["status"] == "ok", COLUMN[kind]])
    for name, text in VERIFIED[kind].items():
        holding = {folder for folder, each in cells.items() if any(re.search(rf"(^|:){name}(?!\w)", c) for c in each)}
        assert set(re.findall(r"results/(\w+)", text)) <= holding, name
        assert not holding or "no rows here" not in text, (name, holding)
