"""The GPU benchmark: whether a GPU gives the same results as the CPU, and how much faster.

    python -m benchmarks.gpu                        everything, on the GPU
    python -m benchmarks.gpu -o gpu.json            and write the figures
    python -m benchmarks.gpu --part run --quick     only a short run
    python -m benchmarks.gpu --device cpu --quick   tiny sizes: to check that everything works

- *Equality*: each encoder that needs no download on both devices, in float32; the largest difference of any map,
  relative to that map's largest value.
- *Encoders*: images per second of SAM 2's image encoder, on images on the device, in float32, in TF32, and
  in bfloat16 by autocast. Weights are random if the official ones are missing; speed does not depend on them.
- *Training*: steps per second of a readout (neck_2L and depth head) and of the hyperprior codec, with features of
  ``sam2_nano`` of embedded scenes in main memory, as in a run.
- *Run*: wall time of the default ``fcbench run`` from an empty cache, with the sums of its stages (``--run``), or of
  ``fcbench run --quick`` (``--part run --quick``). ``--run-limit 300`` ends it after this many seconds and reports what
  was done by then.

Parts that lack an optional package, and failed jobs of the run, are reported; the others continue.

Figures are medians of repeats after a warm-up; the device is synchronized around each.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.samples import DataOptions
from fcbench.features.extract import extract
from fcbench.features.statistics import stats_of
from fcbench.measure.study import device_of
from fcbench.training.codec import fit_codec
from fcbench.training.options import Budget
from fcbench.training.readout import Readout, fit_readout
from fcbench.training.targets import Targets

CPU = torch.device("cpu")
EQUAL = ("hiera_nano", "sam2_nano", "sam2:tiny", "hiera", "timm:tf_efficientnet_lite0", "timm:vit_tiny_patch16_224")
SAM2 = ("sam2:tiny", "sam2:small", "sam2:base_plus", "sam2:large")
NUMERICS = ("float32", "TF32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        group: of the figure's table.
        what: name of the measurement.
        device: device of the measurement.
        note: weights, sizes.
    """

    group: str
    what: str
    device: str
    value: float
    unit: str
    note: str = ""


Say = Callable[[Figure], None]


# --------------------------------------------------------------------------------------------- tools
def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_s(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time [s] of a call, after a warm-up call."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


@contextmanager
def numerics(name: str, device: torch.device) -> Iterator[None]:
    """Arithmetic of matrix products and convolutions, one of `NUMERICS`."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "TF32"
    try:
        with torch.autocast(device.type, torch.bfloat16) if name == "bfloat16" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def built(name: str, device: torch.device) -> Encoder:
    """An encoder with its own weights, or random ones if they are missing."""
    try:
        return registry.build_encoder(name, None, device)
    except FcbenchError:
        return registry.build_encoder(name, "random", device)


def weights_of(encoder: Encoder) -> str:
    """A note on an encoder's weights."""
    return "random weights" if encoder.weights.origin.startswith("random") else encoder.weights.origin


def noise(n: int, side_px: int) -> torch.Tensor:
    """Images of noise, uint8 [n, 3, side, side]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side_px, side_px), dtype=torch.uint8, generator=generator)


# ------------------------------------------------------------------------------------------ measuring
def equality(device: torch.device, quick: bool, say: Say) -> None:
    """The largest difference of features between the devices."""
    images = noise(1, 64) if quick else noise(2, 224)
    for name in EQUAL[:2] if quick else EQUAL:
        there, here = built(name, device), built(name, CPU)
        names = list(here.specs)
        got, expected = (e(images, names).maps for e in (there, here))
        worst = max(float((got[n].cpu() - x).abs().max() / x.abs().max()) for n, x in expected.items())
        say(Figure("equality", name, str(device), worst, "of the largest value", weights_of(there)))


def encoders(device: torch.device, quick: bool, say: Say) -> None:
    """Images per second of SAM 2's image encoders."""
    side_px, batch, repeats = (64, 1, 1) if quick else (1024, 8, 5)
    for name in SAM2[:1] if quick else SAM2:
        encoder, images = built(name, device), noise(batch, side_px).to(device)
        for arithmetic in NUMERICS:
            with numerics(arithmetic, device):
                took_s = median_s(lambda: encoder(images, ["fpn1", "fpn2", "fpn3"]), device, repeats)
            note = f"{side_px} px, batch {batch}, {weights_of(encoder)}"
            say(Figure("encoders", f"{name}, {arithmetic}", str(device), batch / took_s, "images/s", note))


def training(device: torch.device, quick: bool, say: Say) -> None:
    """Steps per second of a readout and of a codec, on the device and on the CPU."""
    with tempfile.TemporaryDirectory(prefix="fcbench-gpu-") as folder:
        work = Path(folder)
        options = DataOptions(None, work, None, 32 if quick else 256)
        data = registry.get("dataset", "scenes").open("train", options)
        encoder = built("sam2_nano", device)
        found = extract(data, encoder, [encoder.default_split_point], Cache(work).make())
        stats, specs = stats_of(found), list(found.specs.values())
        task, targets = registry.get("task", "depth").build(data, data), Targets(data, "depth")
        n_steps = 2 if quick else 40
        budget = Budget(task_steps=n_steps, codec_steps=n_steps)

        def readout(where: torch.device) -> None:
            neck = registry.get("neck", "neck_2L").build(specs, found.grids, budget.width)
            model = Readout(stats, neck, task.head(budget.width, found.finest[1], found.image_px)).to(where)
            fit_readout(model, task, found, targets, None, "task", budget, seed=0, resume=work / "readout")

        def codec(where: torch.device) -> None:
            one: Any = registry.get("codec", "hyperprior").build(specs, stats, {"lmbda": 1.0})
            one.prepare([found.arrays[s.name] for s in specs])
            fit_codec(
                one,
                (1.0, 1.0),
                found,
                stats,
                budget,
                objective="mse",
                task_loss=None,
                device=where,
                seed=0,
                resume=work / "codec",
            )

        sides: Sequence[tuple[str, Callable[[torch.device], None], int]]
        sides = (("readout, neck_2L, depth", readout, budget.task_batch), ("hyperprior", codec, budget.codec_batch))
        for what, fit, batch in sides:
            for where in dict.fromkeys((device, CPU)):
                took_s = median_s(lambda: fit(where), where, 1 if quick else 3)
                say(Figure("training", what, str(where), n_steps / took_s, "steps/s", f"batch {batch}"))


def whole_run(device: torch.device, quick: bool, say: Say, limit_s: float | None = None) -> None:
    """Wall time of the default run from an empty cache, and the sums of its stages by kind."""
    with tempfile.TemporaryDirectory(prefix="fcbench-gpu-run-") as folder:
        command = [sys.executable, "-m", "fcbench", "run", "--device", str(device)]
        command += ["--out", f"{folder}/out", "--cache-dir", f"{folder}/cache", *(["--quick"] if quick else [])]
        began = time.perf_counter()
        code, log = followed(command, limit_s)
        took_s = time.perf_counter() - began
    note = "from an empty cache"
    if code:
        last = log.strip().splitlines()[-1:] or ["no reason given"]
        note += f"; ended by the limit after: {last[0]}" if took_s >= (limit_s or took_s + 1) else f"; {last[0]}"
        if not sum(stages(log).values()):
            raise FcbenchError(f"fcbench run failed: {last[0]}")
    say(Figure("run", "fcbench run" + " --quick" * quick, str(device), took_s, "s", note))
    for kind, seconds in stages(log).items():
        say(Figure("run", kind, str(device), seconds, "s"))


def followed(command: Sequence[str], limit_s: float | None) -> tuple[int, str]:
    """Exit status of a command, and its output, which is also shown; it is ended after `limit_s`."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(limit_s or threading.TIMEOUT_MAX, process.kill)
        timer.daemon = True
        timer.start()
        log = ""
        for line in process.stderr or ():
            click.echo(line, nl=False, err=True)
            log += line
        timer.cancel()
    return process.returncode, log


def stages(log: str) -> dict[str, float]:
    r"""Sums [s] of the stages reported by a run, by kind.

    >>> stages("[1/2] a: features of test (0.5 s; about 1 s left)\n[2/2] a: uniform(bits=2): 1 bpp (2.0 s; about 0 s)")
    {'features': 0.5, 'readouts': 0.0, 'points with their codecs': 2.0}
    """
    found = {"features": 0.0, "readouts": 0.0, "points with their codecs": 0.0}
    for text, seconds in re.findall(r"^\[\d+/\d+\] (.*) \(([\d.]+) s; about", log, re.MULTILINE):
        is_readout = re.search(r": \S+ and (head|adapter)", text)
        kind = "features" if ": features of " in text else "readouts" if is_readout else "points with their codecs"
        found[kind] += float(seconds)
    return found


# ------------------------------------------------------------------------------------------ the program
def table(figures: Sequence[Figure]) -> Table:
    """All figures, one per row."""
    out = Table("", "what", "device", "value", "unit", "note")
    for f in figures:
        out.add_row(f.group, f.what, f.device, f"{f.value:.4g}", f.unit, f.note)
    return out


def machine(device: torch.device) -> dict[str, str]:
    """The machine of the figures."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__, "cpu_threads": str(torch.get_num_threads())}


PARTS = {"equality": equality, "encoders": encoders, "training": training, "run": whole_run}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", "typed", default="cuda", show_default=True, help="cuda, cuda:1, mps or cpu.")
@click.option("--part", "parts", type=click.Choice(list(PARTS)), multiple=True, help="Repeatable. [all but run]")
@click.option("--run", "with_run", is_flag=True, help="Also measure the whole default run.")
@click.option("--run-limit", type=click.FloatRange(min=1), help="Seconds after which the run ends. [none]")
@click.option("--quick", is_flag=True, help="Tiny sizes to check that everything works; not to be quoted.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write the figures to this JSON file.")
def main(
    typed: str, parts: tuple[str, ...], with_run: bool, run_limit: float | None, quick: bool, output: Path | None
) -> None:
    """Compare a GPU with the CPU: equality of features, and speed."""
    device = device_of(typed)
    figures, failed = list[Figure](), list[str]()
    facts = machine(device)

    def say(figure: Figure) -> None:
        figures.append(figure)
        click.echo(f"{figure.group}: {figure.what}, {figure.device}: {figure.value:.4g} {figure.unit}", err=True)
        if output:  # after each figure, so that a later failure loses nothing
            output.write_text(json.dumps({**facts, "figures": [asdict(f) for f in figures]}, indent=1), "utf-8")

    for part in [*(parts or [p for p in PARTS if p != "run"]), *(["run"] if with_run and "run" not in parts else [])]:
        measure = partial(whole_run, limit_s=run_limit) if part == "run" else PARTS[part]
        try:
            measure(device, quick, say)
        except (FcbenchError, ImportError) as error:
            failed.append(part)
            click.echo(f"{part}: left out from here: {error}", err=True)
    Console(width=140).print(", ".join(facts.values()), table(figures), sep="\n")
    if failed:
        raise click.ClickException(f"left out: {', '.join(failed)}")


if __name__ == "__main__":
    main()
