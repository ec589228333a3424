"""Hostile results folders and caches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.fuzz.cases import Case, Outcome
from benchmarks.fuzz.damage import damaged
from fcbench.analysis import verify
from fcbench.core import cache
from fcbench.features.feature_set import SampleInfo
from fcbench.features.store import Writer, open_shard, write_index
from fcbench.results import table
from fcbench.results.folder import PROVENANCE, load_provenance
from fcbench.results.samples import PACKED, load_samples

SCENES = Path(__file__).resolve().parents[2] / "results" / "scenes"


class ResultsSubject:
    """A results folder of two points. rates.csv and provenance.json are text without a checksum: what still reads is
    another table; `fcbench verify` then compares it with the samples."""

    name, weight = "results", 0.5

    def __init__(self, scratch: Path) -> None:
        self._folder = scratch / "results"
        self._folder.mkdir()
        rows = table.to_points(table.load(SCENES))
        self._points = list(dict.fromkeys(r.point for r in rows if r.status == "ok"))[:2]
        few = [r for r in rows if r.point in self._points]
        (self._folder / table.RATES).write_bytes(table.header() + table.to_csv(few))
        runs = [{"run": run} for run in sorted({r.run for r in few})]
        (self._folder / PROVENANCE).write_text(json.dumps({"schema": 4, "runs": runs}))
        self._pack()
        self._good = {name: (self._folder / name).read_bytes() for name in (table.RATES, PROVENANCE, PACKED)}
        self._clean = self._read()

    def _pack(self) -> None:
        import pyarrow.parquet as pq

        whole = pq.read_table(SCENES / PACKED, filters=[("point", "in", self._points)], partitioning=None)
        pq.write_table(whole, self._folder / PACKED, compression="zstd")

    def contains(self, case: Case) -> bool:
        return False

    def draw(self, rng: Random) -> Case:
        name = rng.choice(list(self._good))
        others = [
            b"nan",
            b"inf",
            b"-1",
            b"1e999",
            b'"',
            b"\n",
            b",",
            b"\0",
            b"9" * 30,
            b"[" * 2000,
            *self._good.values(),
        ]
        return Case(self.name, name, {"file": damaged(self._good[name], rng, others)})

    def run(self, case: Case) -> Outcome:
        for name, content in self._good.items():
            (self._folder / name).write_bytes(case.data["file"] if name == case.kind else content)
        found = self._read()
        return Outcome.SAME if _equal(found, self._clean) else Outcome.OTHER

    def _read(self) -> tuple[Any, ...]:
        rows, runs = table.load(self._folder), load_provenance(self._folder)
        samples = [load_samples(self._folder, p) for p in self._points]
        verify.verify(self._folder, with_intervals=False)
        return rows, runs, [list(s.ids) for s in samples], np.concatenate([s.stats.ravel() for s in samples])


def _equal(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    frames: tuple[pd.DataFrame, pd.DataFrame] = (a[0], b[0])
    return frames[0].equals(frames[1]) and a[1:3] == b[1:3] and np.array_equal(a[3], b[3], equal_nan=True)


class CacheSubject:
    """A shard of features and a model in the cache, each beside its digest: damage is seen, and what is damaged is made
    again."""

    name, weight = "cache", 1.0

    def __init__(self, scratch: Path) -> None:
        self._clean, self._folder = scratch / "cache", scratch / "hostile-cache"
        self._contents: dict[str, Any] = {
            "n_samples": 3,
            "shard_samples": 3,
            "specs": [{"name": "fine", "channels": 4, "stride_px": 8, "layout": "BCHW"}],
        }
        self._clean.mkdir()
        writer = Writer(self._clean)
        self._values = torch.arange(3 * 4 * 5 * 7).reshape(3, 4, 5, 7).float()
        writer.append({"fine": self._values})
        grids = writer.finish()
        writer.close()
        samples = [SampleInfo(str(i), i, (40, 56)) for i in range(3)]
        write_index(self._clean, self._contents, (40, 56), samples, [], grids)
        self._model = bytes(range(256))
        cache.put(self._clean / "model", self._model)
        self._names = sorted(p.name for p in self._clean.iterdir())

    def contains(self, case: Case) -> bool:
        return False

    def draw(self, rng: Random) -> Case:
        name = rng.choice(self._names)
        others = [(self._clean / n).read_bytes() for n in self._names]
        return Case(self.name, name, {"file": damaged((self._clean / name).read_bytes(), rng, others)})

    def run(self, case: Case) -> Outcome:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._clean, self._folder)
        (self._folder / case.kind).write_bytes(case.data["file"])
        shard = open_shard(self._folder, self._contents)
        model = cache.get(self._folder / "model")
        if shard is not None:
            values = np.load(self._folder / "fine.npy")
            if not np.array_equal(values, self._values.numpy()) or shard.grids != {"fine": (5, 7)}:
                return Outcome.WRONG
        if model not in (None, self._model):
            return Outcome.WRONG
        return Outcome.REFUSED if shard is None or model is None else Outcome.SAME
