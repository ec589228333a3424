"""Option types and options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from platformdirs import user_cache_path

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.rates import UNITS
from fcbench.core.rules import ImageSize, read, shown

F = TypeVar("F", bound=Callable[..., Any])


class Size(click.ParamType):
    """``N`` for N x N pixels, or ``HxW``."""

    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(p.isascii() and p.isdigit() and len(p) < 20 for p in parts):
            self.fail(f"{shown(value)} is not an image size: give N for N x N pixels, or HxW", param, ctx)
        try:
            return read("an image", ImageSize, (int(parts[0]), int(parts[-1])))
        except FcbenchError as error:
            self.fail(str(error), param, ctx)


def numbers(text: str, kind: type, option: str) -> tuple[Any, ...]:
    """Comma-separated numbers, at least one. Raises `click.BadParameter` for anything else."""
    try:
        values = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        values = ()
    if not values:
        raise click.BadParameter(f"{shown(text)} is not a list of numbers such as 0.5,2,8", param_hint=option)
    return values


def by_task(typed: tuple[str, ...], option: str) -> dict[str, str]:
    """``TASK=VALUE`` pairs as a dict. Raises `click.BadParameter` for anything else."""
    pairs = [text.partition("=") for text in typed]
    for text, (task, _, value) in zip(typed, pairs):
        if not task or not value:
            raise click.BadParameter(f"{text!r} is not TASK=VALUE", param_hint=option)
    return {task: value for task, _, value in pairs}


def cache_option(function: F) -> F:
    return click.option(
        "--cache-dir",
        type=click.Path(path_type=Path),
        envvar="FCBENCH_CACHE",
        default=lambda: user_cache_path("fcbench"),
        help="Scenes, features, trained necks, heads and codecs.  [default: the user's cache; FCBENCH_CACHE]",
    )(function)


def plugin_file_option(kind: str) -> Callable[[F], F]:
    """``--codec FILE.py``: a plug-in file to use under its name; passes nothing on."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and registry.use(kind, value) == value:
            raise click.BadParameter(f"expected a file FILE.py, got {value!r}", ctx, param)

    text = f"Plug-in file of the {kind}, if it is neither built in nor installed."
    return click.option(f"--{kind}", metavar="FILE.py", expose_value=False, callback=read, help=text)


def overwrite_option(function: F) -> F:
    """``--overwrite``, for `check_outputs`."""
    return click.option("--overwrite", is_flag=True, help="Replace an existing output.")(function)


def trust_option(function: F) -> F:
    """``--trust``, for `fcbench.transmit.images.decode` and what else decodes the files of strangers."""
    return click.option(
        "--trust",
        is_flag=True,
        help="Decode in this process, faster. Else a picture or array coder that is not ours (hevc, jpegxl, sz3, ...) "
        "runs in one of its own, within limits of memory and time: bytes made for it may end it.",
    )(function)


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path | None], overwrite: bool) -> None:
    """Check, before any work, that outputs may be written.

    An existing output needs ``--overwrite``, except for figures and tables in a results folder. An output is never an
    input: not a given file, not a file of a given folder, and nothing that a run measured.

    Args:
        inputs: files, and folders whose files are read.

    Raises:
        FcbenchError: an output is a folder, is an input, or exists.
    """
    from fcbench.results.folder import PROVENANCE
    from fcbench.results.table import RATES

    existing = [path for path in inputs if path is not None and path.exists()]
    for output in outputs:
        if output.is_dir():
            raise FcbenchError(f"{output} is a folder: give a file with -o")
        if not output.exists():
            continue
        folder = output.parent
        in_results = (folder / RATES).is_file()
        read = [*existing, folder / RATES, folder / PROVENANCE] if in_results else existing
        if any(_is_read(output, path, in_results) for path in read):
            raise FcbenchError(f"{output} is an input: choose another -o")
        if not overwrite and not in_results:
            raise FcbenchError(f"{output} exists: choose another -o, or add --overwrite")


def _is_read(output: Path, path: Path, in_results: bool) -> bool:
    if path.is_dir():
        return not in_results and output.parent.samefile(path)
    return path.exists() and output.samefile(path)


def results_argument(function: F) -> F:
    return click.argument("results", metavar="RESULTS...", nargs=-1, required=True, type=click.Path(path_type=Path))(
        function
    )


def rate_option(text: str | None = None) -> Callable[[F], F]:
    """``--x``, with a help text."""
    return click.option("--x", type=click.Choice(UNITS), default="bpp", show_default=True, help=text)


def published_option(function: F) -> F:
    """``--published``, for `fcbench.analysis.published.add`."""
    return click.option(
        "--published",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Curves that others published, as dashed anchors: FILE.csv with the columns label, rate, rate_unit, "
        "value, metric, task, source; or CompressAI's FILE.json. Repeatable.",
    )(function)


def by_option(function: F) -> F:
    """``--by``, for `situations.load`."""
    return click.option(
        "--by",
        type=click.Choice(["commit", "budget", "machine", "versions", "folder"]),
        help="Keep runs that differ in this apart: each codec of each run is a curve of its own.",
    )(function)
