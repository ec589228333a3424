"""Do threads, SIMD, oneDNN, the order of samples or other versions change what a codec codes or decodes?

    python -m benchmarks.same_bytes --python OTHER/bin/python --out results/trust

Each cell is a fresh process that codes the same samples with the golden checkpoint of every codec, and decodes what the
first cell coded, and the golden streams. ``--python`` adds a cell of another interpreter, with the versions of Python,
torch and coders that it has; fcbench's requirements must be installed there. Payloads are compared byte by byte,
decoded integers by their number and check (a payload of tables is refused unless it is the one that its integers are
coded to), features by the largest difference in deviations of the map. ``vvc`` is decoded only: its encoder is a
program.
"""

from __future__ import annotations

import argparse
import csv
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcbench.core import registry
from fcbench.core.codecs import with_check
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.testing.maps import features
from fcbench.transmit import checkpoint
from fcbench.transmit.container import ContainerReader

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "streams"
GRIDS = ((23, 30), (23, 30), (5, 7), (8, 8), (1, 1))
REFUSED = (-1, -1)
"""Stands for the number and the check of integers that a decoder says it cannot decode."""
TOLERANCE = 1e-4
"""Largest difference of decoded features that is promised, in deviations of the map."""
Arrays = dict[str, np.ndarray]
COUNTS = ("payloads", "other_payloads", "decoded", "refused", "crashed", "other_integers")
COLUMNS = ("cell", "codec", *COUNTS, "feature_error_std")
VERSIONS = """
import platform, importlib.metadata as m
print("Python", platform.python_version(), *(f", {n} {m.version(n)}" for n in ("torch", "imagecodecs", "av")), sep=" ")
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A setting of the machine. `simd`: ``ATEN_CPU_CAPABILITY``; empty for the best that the processor has."""

    threads: int = 1
    simd: str = ""
    onednn: bool = True
    backwards: bool = False  # samples in the other order
    python: str = sys.executable

    @property
    def name(self) -> str:
        """``4 threads, avx2, no oneDNN, backwards``, or the versions of another interpreter."""
        if self.python != sys.executable:
            found = subprocess.run([self.python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout
            return found.strip().replace(" ,", ",")
        words = [f"{self.threads} threads", self.simd or "best SIMD"]
        return ", ".join(words + ["no oneDNN"] * (not self.onednn) + ["backwards"] * self.backwards)


def cells(pythons: Sequence[str] = ()) -> list[Cell]:
    """The first cell, those of other interpreters, those that differ in one thing, and two that differ in all."""
    simd = [s for s in ("default", "avx2", "avx512") if s != "avx512" or _has_avx512()]
    one = [Cell(2), Cell(4), *(Cell(simd=s) for s in simd), Cell(onednn=False), Cell(backwards=True)]
    return [
        Cell(),
        *(Cell(python=p) for p in pythons),
        *one,
        Cell(4, "default", False, True),
        Cell(2, "avx2", False, True),
    ]


def _has_avx512() -> bool:
    known = Path("/proc/cpuinfo")
    return known.exists() and "avx512" in known.read_text()


# -------------------------------------------------------------------------------------------- a cell
def code(cell: Cell, reference: Path | None, out: Path) -> None:
    """Code and decode in this process. `reference`: what the first cell wrote."""
    torch.set_num_threads(cell.threads)
    torch.backends.mkldnn.set_flags(cell.onednn)
    first = dict(np.load(reference)) if reference else {}
    found: Arrays = {}
    for name in registry.names("codec"):
        part = out.parent / f"{name}.npz"
        if (pid := os.fork()) == 0:  # the coder that it calls may crash
            own: Arrays = {}
            for arrays in _coded(cell, name, first, out.parent):
                own |= arrays
                np.savez(part, **own)
            os._exit(0)
        os.waitpid(pid, 0)
        found |= dict(np.load(part))
        part.unlink()
    np.savez(out, **found)


def _coded(cell: Cell, name: str, first: Arrays, folder: Path) -> Iterator[Arrays]:
    """What a codec codes and decodes, in steps."""
    loaded = _golden(name, folder)
    for i, record in enumerate(ContainerReader(GOLDEN / f"{name}.fcb")):
        yield _decoded(f"{name}/golden{i}", loaded, record.payload, record.shapes)
    samples = _samples(loaded, first)
    for i in reversed(range(len(samples))) if cell.backwards else range(len(samples)):
        key, x = f"{name}/{i}", samples[i]
        stream = None if name == "vvc" else with_check(loaded.codec.encode(x), loaded.codec, x.shapes)
        own = ContainerReader(GOLDEN / "vvc.fcb")[i].payload if stream is None else stream.payload
        yield {f"{key}/input/{n}": m.numpy() for n, m in x.maps.items()}
        yield {f"{key}/payload": np.frombuffer(own, np.uint8)}
        yield _decoded(key, loaded, first[f"{key}/payload"].tobytes() if first else own, x.shapes)


def _decoded(key: str, loaded: checkpoint.Loaded, payload: bytes, shapes: Any) -> Arrays:
    try:
        decoded = loaded.codec.decode(payload, shapes)
    except FcbenchError:
        return {f"{key}/integers": np.array(REFUSED)}
    maps = {f"{key}/maps/{n}": m.numpy() for n, m in decoded.features.maps.items()}
    return {f"{key}/integers": np.array([decoded.n_symbols, decoded.check]), **maps}


def _golden(name: str, folder: Path) -> checkpoint.Loaded:
    path = folder / f"{name}.safetensors"
    path.write_bytes(lzma.decompress((GOLDEN / f"{name}.safetensors.xz").read_bytes()))
    return checkpoint.load(path)


def _samples(loaded: checkpoint.Loaded, first: Arrays) -> list[Features]:
    """What is coded: made in the first cell, since making it is arithmetic, too."""
    codec = loaded.point.codec
    grids: Sequence[tuple[int, int]] = ((128, 192),) if codec == "vvc" else GRIDS
    if not first:
        return [features(loaded.specs, grid, seed=10 + i) for i, grid in enumerate(grids)]
    names = [s.name for s in loaded.specs]
    return [Features({n: torch.from_numpy(first[f"{codec}/{i}/input/{n}"]) for n in names}) for i in range(len(grids))]


# -------------------------------------------------------------------------------------------- all cells
def compare(cell: str, first: Arrays, other: Arrays) -> list[dict[str, Any]]:
    """A row per codec: payloads that the first cell coded, those that differ here; payloads that it decoded, those that
    are refused here, that crash the library or come after such a crash, that are decoded to other integers without a
    word; the largest error."""
    rows = []
    for name in dict.fromkeys(key.split("/")[0] for key in first):
        keys = [k for k in first if k.startswith(f"{name}/")]
        both = [k for k in keys if k in other]
        errors = [np.abs(first[k] - other[k]).max() / max(1e-6, first[k].std()) for k in both if "/maps/" in k]
        payloads, integers = ([k for k in keys if k.endswith(end)] for end in ("/payload", "/integers"))
        refused = sum(k in other and tuple(other[k]) == REFUSED for k in integers)
        others, wrong = (
            sum(k in other and not np.array_equal(first[k], other[k]) for k in ks) for ks in (payloads, integers)
        )
        crashed = sum(k not in other for k in integers)
        counts = len(payloads), others, len(integers), refused, crashed, wrong - refused
        rows.append(dict(zip(COLUMNS, (cell, name, *counts, f"{max(errors, default=0):.2g}"), strict=True)))
    return rows


def _run(cell: Cell, folder: Path, reference: Path | None) -> Path:
    out = folder / f"{len(list(folder.glob('*.npz')))}.npz"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(cell.threads)}
    if cell.simd:
        environment["ATEN_CPU_CAPABILITY"] = cell.simd
    options = [
        str(cell.threads),
        cell.simd,
        str(int(cell.onednn)),
        str(int(cell.backwards)),
        str(reference or ""),
        str(out),
    ]
    command = [cell.python, "-W", "ignore", "-m", "benchmarks.same_bytes", "--cell", *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return out


def _write(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "same_bytes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cells; the exit status is 1 where a decoder was out of step, or features differ too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_bytes", description=__doc__.split("\n\n")[0])
    parser.add_argument("--cell", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--python", action="append", default=[], help="also with this interpreter (repeatable)")
    parser.add_argument("--first", type=int, help="only so many cells")
    parser.add_argument("--out", type=Path, help="folder for same_bytes.csv")
    options = parser.parse_args(arguments)
    if options.cell:
        threads, simd, onednn, backwards, reference, out = options.cell
        cell = Cell(int(threads), simd, bool(int(onednn)), bool(int(backwards)))
        code(cell, Path(reference) if reference else None, Path(out))
        return 0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fcbench-same-") as name:
        first, *others = cells(options.python)[: options.first]
        reference = _run(first, Path(name), None)
        for cell in others:
            found = compare(cell.name, dict(np.load(reference)), dict(np.load(_run(cell, Path(name), reference))))
            rows += found
            worst = max(found, key=lambda r: float(r["feature_error_std"]))
            said = [
                f"{what}: {', '.join(r['codec'] for r in found if r[what]) or 'none'}"
                for what in ("other_payloads", "refused", "crashed", "other_integers")
            ]
            said.append(f"features within {worst['feature_error_std']} ({worst['codec']})")
            print(f"{found[0]['cell']}: {'; '.join(said)}", flush=True)
            if options.out:
                _write(rows, options.out)
    return int(any(r["other_integers"] or float(r["feature_error_std"]) > TOLERANCE for r in rows))


if __name__ == "__main__":
    sys.exit(main())
