"""The speed benchmark: overhead of fcbench compared with the work that cannot be avoided.

    python -m benchmarks.speed                 everything
    python -m benchmarks.speed --skip-runs     without the two whole runs
    python -m benchmarks.speed --quick         smaller samples and ``--quick`` runs: to check that everything works

Every figure is a ratio of two times, or of two sizes, taken in one process and on one machine: repetitions of both
sides alternate, and the figure is the median of the ratios of neighbours. Run nothing else at the same time.

- *Extraction*: `fcbench.features.extract.extract` into a fresh cache (reads, encodes, checks, writes, syncs) against a
  bare loop that calls the same encoder on the same images, held in memory as batches of the same size. Also for SAM 2's
  tiny encoder with random weights at 1024x1024.
- *Entropy coding*: everything between a sample's integers and table indexes and its payload and checksum (sorting
  by table, offsets, range checks, escapes, coder calls, end of the string, checksum), both ways, against bare calls on
  the same integers, indexes and tables: constriction's (the coder in use), one call per table, with the sorting and
  shifting that they need; and CompressAI's ``encode_with_indexes`` and ``decode_stream``. One thread.
- *Coded against estimated*: size of the .fcb file of test scenes, less 16 B per sample, over the estimated bytes.
- *Second codec*: wall time of ``fcbench run`` when ``factorized`` is added to a finished run of ``hyperprior``
  (one encoder, default tasks and budgets), over that of the first run from an empty cache.

Measured on 2 otherwise idle cores of an AMD EPYC with ``--skip-runs --quick``: all 13 bounds kept; extraction 0.901
(hiera_nano) and 0.987 (EfficientNet-Lite0), entropy coding 0.74 to 1.08 of constriction's bare calls, 0.97 to 3.3 of
CompressAI's. With ``--only-runs``: a second codec 0.380. Against constriction calls on arrays that were sorted, shifted
and cut beforehand, where nothing but the coder is left, ``hyperprior`` at 8x8 reached 0.43 to 0.53: there the sorting
alone takes most of the allowance.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import click
import constriction
import numpy as np
import torch
from compressai import ans

from fcbench.coders.strings import StringDecoder, StringEncoder
from fcbench.coders.tables import EntropyTables, Groups
from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.codecs import OperatingPoint
from fcbench.core.features import Encoder
from fcbench.core.processes import peak_bytes
from fcbench.core.registry import build_encoder
from fcbench.core.samples import DataOptions, Dataset
from fcbench.encoders.shared.nano import FOLDER
from fcbench.features.extract import extract
from fcbench.features.feature_set import FeatureSet
from fcbench.features.statistics import stats_of
from fcbench.training.codec import fit_codec
from fcbench.training.options import Budget
from fcbench.transmit import container

BATCH = 8
NANO, LITE, SAM2 = "hiera_nano", "timm:tf_efficientnet_lite0", "sam2:tiny"
LITE_PX, SAM2_PX = (360, 480), (1024, 1024)
LEARNED = ("factorized", "hyperprior")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured ratio and its bound."""

    what: str
    value: float
    bound: float
    at_least: bool  # else at most
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the bound is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        """A row of the table."""
        sign = ">=" if self.at_least else "<="
        verdict = "pass" if self.ok else "MISS"
        return f"{verdict}  {self.what:46} {self.value:6.3f} {sign} {self.bound:4.2f}  {self.detail}"


def alternate(sides: Sequence[Callable[[], object]], repeats: int, *, warm: bool = True) -> np.ndarray:
    """Times [s] of each side, [sides, repeats], taken in turn after one untimed round."""
    if warm:
        for side in sides:
            side()
    times = np.empty((len(sides), repeats))
    for repeat in range(repeats):
        for i, side in enumerate(sides):
            began = time.perf_counter()
            side()
            times[i, repeat] = time.perf_counter() - began
    return times


# --------------------------------------------------------------------------------------- extraction
def encoder_of(name: str) -> Encoder:
    """An encoder with its embedded weights, or random ones if this checkout has none."""
    return build_encoder(name, weights_of(name), torch.device("cpu"))


def weights_of(name: str) -> str | None:
    """``random`` for encoders whose weights need a download."""
    return None if (FOLDER / f"{name}.safetensors").exists() else "random"


def scenes(work: Path, split: Any, n: int, size_px: tuple[int, int] | None = None) -> Dataset:
    """Scenes, rendered now."""
    options = DataOptions(None, work / "data", size_px, n)
    opened: Dataset = registry.get("dataset", "scenes").open(split, options)
    return opened


def extraction(data: Dataset, encoder: Encoder, work: Path, repeats: int) -> tuple[Figure, FeatureSet]:
    """Extraction against the bare loop, and its peak memory; the features of the last extraction."""
    splits = [encoder.default_split_point]
    images = torch.stack([data[i].image for i in range(len(data))])
    batches = images.split(BATCH)
    stores: list[FeatureSet] = []
    caches: list[Path] = []

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                encoder(batch, splits)

    def ours() -> None:
        caches.append(work / f"cache-{data.split}-{encoder.name.replace(':', '-')}-{len(caches)}")
        stores.append(extract(data, encoder, splits, Cache(caches[-1]), batch_size=BATCH))

    times = alternate([bare, ours], repeats)
    peak = peak_bytes(ours)
    for cache in caches[:-1]:
        shutil.rmtree(cache)
    height, width = images.shape[-2:]
    rates = len(data) / np.median(times, axis=1)
    detail = f"{rates[1]:.3g} of {rates[0]:.3g} images/s"
    detail += f", {peak >> 20} MiB for batches of {len(batches[0])}" if peak is not None else ""
    what = f"extraction, {encoder.name} {height}x{width}"
    return Figure(what, _speed(times), 0.9, True, detail), stores[-1]


def _speed(times: np.ndarray) -> float:
    """Median ratio of the bare side's time (first row) to ours (second)."""
    return float(np.median(times[0] / times[1]))


# ------------------------------------------------------------------------------------ entropy coding
@dataclass(frozen=True, slots=True)
class Stage:
    """Input of the entropy coder: symbols [n], their tables, and how they are grouped."""

    tables: EntropyTables
    symbols: np.ndarray
    groups: Groups
    indexes: np.ndarray | None  # argument of `Groups.by_index`; None if groups are equal

    def regroup(self) -> Groups:
        """The groups, made as in the codec."""
        n_tables = self.tables.coder.n_tables
        if self.indexes is None:
            return Groups.equal(n_tables, self.symbols.size // n_tables)
        return Groups.by_index(self.indexes, n_tables, pairs=self.groups.pairs)


def recorded(codec: Any, store: FeatureSet, place: int) -> list[Stage]:
    """The stages of coding one sample."""
    stages: list[Stage] = []

    def put(_: StringEncoder, tables: EntropyTables, s: np.ndarray, groups: Groups, part: str) -> None:
        indexes = None
        if groups.order is not None:
            indexes = np.empty(len(groups.order), np.uint8)
            indexes[groups.order] = groups.used.repeat(groups.counts >> groups.pairs)
        stages.append(Stage(tables, s, groups, indexes))

    with mock.patch.object(StringEncoder, "put", put):
        codec.encode(store.maps(place))
    return stages


def bare_coder(stages: Sequence[Stage]) -> tuple[Callable[[], object], Callable[[], object]]:
    """The bare calls of constriction, one per table in use, and their needs: symbols sorted by table and shifted to
    its first one, and back. No range checks, escapes, checksum or trimming."""
    queue = constriction.stream.queue
    plans = [_bare_plan(stage) for stage in stages]

    def encode() -> np.ndarray:
        encoder = queue.RangeEncoder()
        for indexes, values, models, offset in plans:
            order, bounds = _sorted_by(indexes, len(models))
            run = values.take(order) - offset.repeat(np.diff(bounds))
            for i, (start, end) in enumerate(zip(bounds[:-1], bounds[1:])):
                if end > start:
                    encoder.encode(run[start:end], models[i])
        words: np.ndarray = encoder.get_compressed()
        return words

    words = encode()

    def decode() -> list[np.ndarray]:
        decoder, out = queue.RangeDecoder(words), []
        for indexes, _, models, offset in plans:
            order, bounds = _sorted_by(indexes, len(models))
            counts = np.diff(bounds)
            parts = [decoder.decode(m, n) for m, n in zip(models, counts.tolist()) if n]
            values = np.empty(len(order), np.int32)
            values[order] = np.concatenate(parts) + offset.repeat(counts)
            out.append(values)
        return out

    for found, (_, values, _, _) in zip(decode(), plans, strict=True):
        assert (found == values).all()
    return encode, decode


def _bare_plan(stage: Stage) -> tuple[np.ndarray, np.ndarray, list[Any], np.ndarray]:
    """Index of each symbol's table [n], symbols [n] within it, models [T], first symbols [T] of a stage."""
    tables, groups = stage.tables, stage.groups
    offset = tables.offset.numpy()
    indexes = groups.unsorted(groups.used.repeat(groups.counts).astype(np.int32))
    last = tables.length.numpy()[indexes] - 3  # the next one is the escape
    first = offset[indexes]
    values = stage.symbols.clip(first, first + last)
    return indexes.astype(np.uint8), values, tables.coder.models, offset


def _sorted_by(indexes: np.ndarray, n_tables: int) -> tuple[np.ndarray, np.ndarray]:
    order = indexes.argsort(kind="stable")
    return order, indexes.take(order).searchsorted(np.arange(n_tables + 1))


def compressai_coder(stages: Sequence[Stage]) -> tuple[Callable[[], object], Callable[[], object]]:
    """CompressAI's bare calls, one per stage, on the same symbols, indexes and tables, with its lists made before."""
    plans = []
    for stage in stages:
        indexes, values, _, offset = _bare_plan(stage)
        cdf, length = stage.tables.cdf.tolist(), stage.tables.length.tolist()
        plans.append((values.tolist(), indexes.tolist(), cdf, length, offset.tolist()))

    def encode() -> bytes:
        encoder = ans.BufferedRansEncoder()
        for plan in plans:
            encoder.encode_with_indexes(*plan)
        out: bytes = encoder.flush()
        return out

    string = encode()

    def decode() -> list[list[int]]:
        decoder = ans.RansDecoder()
        decoder.set_stream(string)
        return [decoder.decode_stream(*plan[1:]) for plan in plans]

    for found, plan in zip(decode(), plans, strict=True):
        assert found == plan[0]
    return encode, decode


def our_coder(stages: Sequence[Stage]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Coding and decoding as in a codec, from integers and indexes to payload and checksum, and back."""

    def encode() -> tuple[bytes, int]:
        string = StringEncoder()
        for number, stage in enumerate(stages):
            string.put(stage.tables, stage.symbols, stage.regroup(), f"y{number}")
        return b"".join(string.finish().values()), string.check

    payload, check = encode()

    def decode() -> int:
        string = StringDecoder(payload)
        for stage in stages:
            string.take(stage.tables, stage.regroup())
        return string.check

    if decode() != check:
        raise click.ClickException("decoded integers differ from the coded ones")
    return encode, decode


def entropy_coding(name: str, codec: Any, store: FeatureSet, n_samples: int, repeats: int) -> list[Figure]:
    """Speed of entropy coding and decoding together, relative to the bare calls, over some samples."""
    bare = (("constriction", bare_coder), ("CompressAI", compressai_coder))
    ratios: list[list[np.ndarray]] = [[] for _ in bare]
    sums = np.zeros(6)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for place in range(n_samples):
        stages = recorded(codec, store, place)
        sides = [*our_coder(stages), *(f for _, make in bare for f in make(stages))]
        times = alternate(sides, repeats)
        for i, found in enumerate(ratios, 1):
            found.append((times[2 * i] + times[2 * i + 1]) / (times[0] + times[1]))
        sums += np.median(times, axis=1) / n_samples
    torch.set_num_threads(before)
    us = sums * 1e6
    shape = "x".join(map(str, store.maps(0).maps.popitem()[1].shape[1:]))
    out = []
    for i, (coder, _) in enumerate(bare, 1):
        value = float(np.median(np.concatenate(ratios[i - 1])))
        detail = f"encode {us[0]:.0f} of {us[2 * i]:.0f} us, " f"decode {us[1]:.0f} of {us[2 * i + 1]:.0f} us"
        what = f"{name} {shape}, of {coder}'s calls"
        out.append(Figure(what, value, 0.7, True, detail))
    return out


# --------------------------------------------------------------------------------------------- sizes
def trained(point: OperatingPoint, store: FeatureSet, steps: int, batch: int, work: Path) -> Any:
    """A frozen codec after a short training."""
    torch.manual_seed(0)
    specs, stats = list(store.specs.values()), stats_of(store)
    codec = registry.get("codec", point.codec).build(specs, stats, point.params)
    maps = store.batch(range(min(256, len(store))))
    codec.prepare([maps[s.name] for s in specs])
    if registry.get("codec", point.codec).trained:
        fit_codec(
            codec,
            (float(point.params["lmbda"]),) * 2,
            store,
            stats,
            Budget(codec_steps=steps, codec_batch=batch),
            objective="mse",
            task_loss=None,
            device=torch.device("cpu"),
            seed=0,
            resume=work / "codec.resume",
        )
    codec.freeze()
    return codec


def points(name: str, which: Sequence[float]) -> list[OperatingPoint]:
    """Operating points at fractions of a codec's default sweep."""
    sweep = registry.get("codec", name).sweep("mse")
    return [OperatingPoint(name, sweep[round(f * (len(sweep) - 1))]) for f in which]


def coded_size(point: OperatingPoint, codec: Any, test: FeatureSet, work: Path) -> Figure:
    """Size of the .fcb file of a set, less 16 B per sample, over the estimate."""
    path, bits = work / "speed.fcb", 0.0
    header = container.Header(point.codec, "0" * 64, tuple(test.specs.values()))
    with container.ContainerWriter(path, header) as writer, torch.inference_mode():
        for place in range(len(test)):
            sample = test.maps(place)
            writer.append(codec.encode(sample), sample.shapes)
            bits += float(codec(sample.maps)[1].sum())
    coded, estimated = path.stat().st_size / len(test), bits / 8 / len(test)
    detail = f"coded {coded:.1f} B, estimated {estimated:.1f} B per sample"
    value = (coded - 16) / estimated
    return Figure(f"coded/estimated, {point.label}", value, 1.02, False, detail)


# ---------------------------------------------------------------------------------------- second codec
def second_codec(work: Path, options: Sequence[str]) -> Figure:
    """Wall time of a run that adds ``factorized``, over the first one's with ``hyperprior``."""
    weights = weights_of(NANO)
    command = [
        *(sys.executable, "-m", "fcbench", "run", "--encoder", NANO),
        *("--cache-dir", str(work / "run-cache"), "--out", str(work / "run")),
        *(("--weights", weights) if weights else ()),
        *options,
        *("--codec", "hyperprior"),
    ]
    times = []
    for extra in ([], ["--codec", "factorized"]):
        began = time.perf_counter()
        done = subprocess.run([*command, *extra], capture_output=True, text=True)
        times.append(time.perf_counter() - began)
        if done.returncode:
            raise click.ClickException(f"fcbench run failed: {done.stderr[-500:]}")
    detail = f"{times[1]:.0f} s after {times[0]:.0f} s"
    return Figure("adding a second codec / the first run", times[1] / times[0], 0.4, False, detail)


# ---------------------------------------------------------------------------------------- command line
def measure(work: Path, quick: bool, say: Callable[[Figure], None]) -> list[Figure]:
    """Measure everything but the whole runs."""
    out: list[Figure] = []

    def keep(figure: Figure) -> None:
        out.append(figure)
        say(figure)

    repeats, steps = (3, 20) if quick else (5, 150)
    nano, lite = encoder_of(NANO), encoder_of(LITE)
    figure, train = extraction(scenes(work, "train", 128 if quick else 512), nano, work, repeats)
    keep(figure)
    n_lite = 16 if quick else 96
    figure, large = extraction(scenes(work, "train", n_lite, LITE_PX), lite, work, repeats)
    keep(figure)
    keep(extraction(scenes(work, "train", 2, SAM2_PX), encoder_of(SAM2), work, repeats)[0])
    test = extract(scenes(work, "test", 16 if quick else 100), nano, [nano.default_split_point], Cache(work / "test"))
    for name in ("uniform", *LEARNED):
        for point in points(name, (0.5,) if quick else (0.0, 0.5, 1.0)):
            codec = trained(point, train, steps, 32, work)
            keep(coded_size(point, codec, test, work))
            if name in LEARNED:
                for figure in entropy_coding(point.label, codec, test, 4, 20 * repeats):
                    keep(figure)
    for name in LEARNED:
        (point,) = points(name, (0.5,))
        codec = trained(point, large, max(2, steps // 10), 8, work)
        for figure in entropy_coding(point.label, codec, large, 2, 10 * repeats):
            keep(figure)
    return out


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures to this file.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if a bound is missed.")
@click.option("--skip-runs", is_flag=True, help="Leave out the two whole runs.")
@click.option("--only-runs", is_flag=True, help="Measure only the two whole runs.")
@click.option("--quick", is_flag=True, help="Less of everything; not to be quoted.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of encoders and training. [all cores]")
def main(
    json_file: Path | None, strict: bool, skip_runs: bool, only_runs: bool, quick: bool, threads: int | None
) -> None:
    """Measure the overhead of fcbench over unavoidable work, and compare it with the bounds."""
    logging.basicConfig(level=logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if threads:
        torch.set_num_threads(threads)
    figures: list[Figure] = []

    def say(figure: Figure) -> None:
        click.echo(figure.line())

    with tempfile.TemporaryDirectory(prefix="fcbench-speed-") as folder:
        work = Path(folder)
        if not only_runs:
            figures += measure(work, quick, say)
        if not skip_runs:
            options = [*(["--quick"] if quick else []), *(["--threads", str(threads)] if threads else [])]
            figures.append(second_codec(work, options))
            say(figures[-1])
    if json_file:
        rows = [{**asdict(f), "ok": f.ok} for f in figures]
        json_file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    n_missed = sum(not f.ok for f in figures)
    click.echo(f"{len(figures) - n_missed} of {len(figures)} bounds kept")
    if strict and n_missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
