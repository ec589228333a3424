"""The command line: parse, call, print."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
from platformdirs import user_cache_path

from fcbench import __version__, registry
from fcbench.suite import QUICK, TASKS, Suite, load
from fcbench.types import FcbenchError

F = TypeVar("F", bound=Callable[..., Any])
EPILOG_RUN = """\b
Examples:
  fcbench run                                    both embedded encoders, four tasks
  fcbench run --quick --out runs/look            a minute, to see that all works
  fcbench run --codec hyperprior --codec factorized --task depth
  fcbench run --encoder timm:tf_efficientnet_lite0 --dataset camvid --data-root camvid --task segmentation
"""


class Group(click.Group):
    """Commands whose failures are one line on standard error and exit status 1, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FcbenchError as error:
            raise click.ClickException(str(error)) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if (
            args
            and self.get_command(ctx, args[0]) is None
            and not args[0].startswith("-")
        ):
            ctx.fail(registry.unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fcbench")
@click.option("-v", "--verbose", is_flag=True, help="Log what is being done.")
def main(verbose: bool) -> None:
    """Rate-task-accuracy of coded vision features.

    A frozen encoder's features cross a learned, entropy-coded bottleneck at several rates, then a neck and a task
    head; out come (bits, accuracy) curves. With no options, `fcbench run` is a complete benchmark on embedded data.
    """
    warnings.filterwarnings(
        "ignore", "`torch.jit.script` is deprecated"
    )  # timm's affair
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
    )


class Size(click.ParamType):
    """``N`` for N x N pixels, or ``HxW``."""

    name = "N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
            self.fail(
                f"{value!r} is no image size: give N for N x N pixels, or HxW",
                param,
                ctx,
            )
        return int(parts[0]), int(parts[-1])


def _numbers(text: str, kind: type, option: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of numbers such as 0.5,2,8", param_hint=option
        ) from None


def _cache_option(function: F) -> F:
    return click.option(
        "--cache-dir",
        type=click.Path(path_type=Path),
        envvar="FCBENCH_CACHE",
        default=lambda: user_cache_path("fcbench"),
        help="Rendered scenes, features, trained necks, heads and codecs.  [default: the user's cache; FCBENCH_CACHE]",
    )(function)


@main.command(epilog=EPILOG_RUN)
@click.argument(
    "suite_file", metavar="[SUITE.py]", required=False, type=click.Path(path_type=Path)
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME[:VARIANT]",
    help="Repeatable. [hiera_nano, sam2_nano]",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="Repeatable. [uniform, hyperprior]",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help=f"Repeatable. [{', '.join(TASKS)}]",
)
@click.option("--dataset", metavar="NAME", help="[scenes]")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder of a data set that is read from disk.",
)
@click.option(
    "--split", metavar="NAME", help="Split point, e.g. stage3. [the encoder's default]"
)
@click.option("--neck", metavar="NAME", help="[neck_2L]")
@click.option(
    "--head",
    type=click.Choice(["trained"]),
    help="How heads come about: trained with the neck. [trained]",
)
@click.option(
    "--objective",
    type=click.Choice(["mse", "task"]),
    help="What learned codecs preserve. [mse]",
)
@click.option(
    "--lambdas",
    metavar="L1,L2,...",
    help="lmbda of every learned codec. [each codec's default sweep]",
)
@click.option(
    "--image-size",
    type=Size(),
    help="Resize images and targets to this. [the data set's own]",
)
@click.option(
    "--weights",
    metavar="random|FILE",
    help="Of the encoder. [its own: official or embedded]",
)
@click.option("--seeds", metavar="S1,S2,...", help="[0]")
@click.option(
    "--n-train",
    type=click.IntRange(min=1),
    help="Use at most so many training samples.",
)
@click.option(
    "--n-test", type=click.IntRange(min=1), help="Use at most so many test samples."
)
@click.option(
    "--task-steps", type=click.IntRange(min=1), help="Training steps of neck and head."
)
@click.option(
    "--codec-steps", type=click.IntRange(min=1), help="Training steps of a codec."
)
@click.option("--batch", type=click.IntRange(min=1), help="Samples a training step.")
@click.option(
    "--on-bad-image",
    type=click.Choice(["stop", "skip"]),
    help="Stop at an unreadable image, or go on. [stop]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="A minute's run to see that all works; not to be quoted.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/default"),
    show_default=True,
    help="Results folder; a run resumes in it.",
)
@click.option(
    "--keep-streams", is_flag=True, help="Keep the .fcb files under OUT/streams."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [all cores]")
@_cache_option
def run(
    suite_file: Path | None, out: Path, cache_dir: Path, device: str, threads: int | None, keep_streams: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Measure rate-accuracy points: code features, read them, write OUT/rates.csv and OUT/curves.png.

    Every point is written when it is done; the same command resumes at the first missing one.
    """
    suite = _suite(suite_file, options)
    suite.check()
    import torch

    from fcbench import pipeline

    if threads:
        torch.set_num_threads(threads)
    summary = pipeline.measure(
        suite, out, cache_dir, _device(device), keep_streams=keep_streams
    )
    click.echo(
        f"{summary.n_measured} points measured, {summary.n_found} found done, in {out}"
    )
    if summary.n_coded:
        _draw(out, out / "curves.png", "bpp", None)
    if summary.failures:
        raise FcbenchError(
            f"{len(summary.failures)} jobs failed, first: {summary.failures[0]}"
        )


def _suite(suite_file: Path | None, options: dict[str, Any]) -> Suite:
    """The suite of a file or the default, changed by the options that were given."""
    suite = load(suite_file) if suite_file else Suite()
    given = {
        k: v for k, v in options.items() if v is not None and v != () and v is not False
    }
    steps = {
        f"{k}_steps": given.pop(f"{k}_steps")
        for k in ("task", "codec")
        if f"{k}_steps" in given
    }
    if given.pop("quick", False):
        suite = replace(
            suite,
            name=f"{suite.name}-quick",
            budget=QUICK,
            n_train=suite.n_train or 300,
            n_test=suite.n_test or 40,
        )
    if "batch" in given:
        batch = given.pop("batch")
        steps |= {"task_batch": batch, "codec_batch": batch}
    if "lambdas" in given:
        values = _numbers(given.pop("lambdas"), float, "--lambdas")
        codecs = given.get("codecs", suite.codecs)
        learned = [
            c
            for c in codecs
            if c in registry.names("codec") and registry.get("codec", c).trained
        ]
        suite = replace(
            suite,
            params={
                **suite.params,
                **{c: tuple({"lmbda": v} for v in values) for c in learned},
            },
        )
    if "seeds" in given:
        given["seeds"] = _numbers(given["seeds"], int, "--seeds")
    if "image_size" in given:
        given["image_size_px"] = given.pop("image_size")
    return replace(suite, **given, budget=replace(suite.budget, **steps))


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise FcbenchError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): try --device cpu"
        ) from error


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.png, .svg or .pdf",
)
@click.option(
    "--x",
    "x",
    type=click.Choice(["bpp", "bpfp", "bytes_per_sample"]),
    default="bpp",
    show_default=True,
)
@click.option("--metric", help="Another metric than each task's primary one, e.g. oks.")
def plot(results: Path, output: Path, x: str, metric: str | None) -> None:
    """Draw rate-accuracy curves of a results folder. Runs nothing.

    \b
    Example:
      fcbench plot runs/default -o curves.pdf --x bpfp
    """
    _draw(results, output, x, metric)


def _draw(results: Path, output: Path, x: str, metric: str | None) -> None:
    from fcbench import plot as drawing
    from fcbench import results as rows

    click.echo(
        drawing.save(drawing.figure(rows.load(results), x=x, metric=metric), output)
    )


@main.command("list")
@click.argument("kind", type=click.Choice([f"{k}s" for k in registry.KINDS]))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_plugins(kind: str, as_json: bool) -> None:
    """Name the plug-ins of a kind, with a line on each.

    \b
    Example:
      fcbench list codecs
    """
    found = {
        name: registry.summary(kind[:-1], name) for name in registry.names(kind[:-1])
    }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, summary in found.items():
        click.echo(f"{name:{width}}  {summary}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@_cache_option
def doctor(as_json: bool, cache_dir: Path) -> None:
    """Say what this installation has, what is missing and how to get it.

    \b
    Example:
      fcbench doctor
    """
    from fcbench import doctor as checks

    found = checks.examine(cache_dir)
    if as_json:
        click.echo(
            json.dumps(
                [{"what": c.what, "ok": c.ok, "found": c.found} for c in found],
                indent=1,
            )
        )
    else:
        for check in found:
            click.echo(f"{'ok  ' if check.ok else 'MISS'}  {check.what}: {check.found}")
    if not all(c.ok for c in found if c.needed):
        sys.exit(1)


if __name__ == "__main__":
    main()
