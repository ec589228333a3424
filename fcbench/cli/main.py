"""The command line: its verbs, and how their failures are reported."""

from __future__ import annotations

import errno
import importlib
import logging
import warnings
from typing import Any

import click

from fcbench import __version__
from fcbench.cli.say import LogFormatter
from fcbench.core.errors import FcbenchError, is_out_of_memory, one_line, printable, unknown

VERBS = {
    "run": "Measure rate-accuracy points of codecs.",
    "compare": "Compare codecs with an anchor, or runs with each other: BD-rates with intervals.",
    "cost": "Price an encoder's specialization: accuracy, bits, usable information.",
    "cross-neck": "Measure what adapting features to one task costs the others.",
    "reproduce": "Measure a published experiment, and write its tables: the paper's.",
    "curves": "Write the points of curves for other tools: CSV, LaTeX, Markdown, CompressAI's JSON.",
    "plot": "Draw rate-accuracy curves.",
    "report": "Write a page of results: curves, comparisons, costs, provenance.",
    "merge": "Join results folders of several people or machines.",
    "verify": "Check that a results folder holds what it claims.",
    "encode": "Code images into an .fcb file with a trained codec.",
    "decode": "Decode an .fcb file to features.",
    "export": "Write a trained codec as torch.export programs.",
    "inspect": "Show what an .fcb file or a checkpoint holds.",
    "list": "List the plug-ins of a kind, or the columns of rates.csv.",
    "doctor": "Report versions, devices, weights, and what is missing.",
}
"""Each verb is the module of that name in this room and sets ``COMMAND``."""


class Group(click.Group):
    """The verbs. A failure is one line on standard error and exit status 1, never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"fcbench.cli.{name.replace('-', '_')}")
        command: click.Command = module.COMMAND
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = printable(error.message)  # final to type checkers
            raise
        except (FcbenchError, MemoryError, OSError, RuntimeError) as error:
            line = _line_of(error)
            if line is None:
                raise
            raise click.ClickException(line) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


def _line_of(error: Exception) -> str | None:
    """Message for a failure that needs no traceback: bad input, too little memory, an unusable file; None otherwise."""
    if isinstance(error, FcbenchError):
        return one_line(str(error))
    if is_out_of_memory(error):
        return "out of memory: give a smaller --image-size or --batch"
    if isinstance(error, OSError) and error.errno != errno.EPIPE:  # click handles a closed pipe
        return one_line(f"cannot use {error.filename or 'a file'}: {error.strerror or error}")
    return None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fcbench")
@click.option("-v", "--verbose", is_flag=True, help="Log what is being done.")
def main(verbose: bool) -> None:
    """Rate-task-accuracy of coded vision features.

    A frozen encoder's features cross a learned, entropy-coded bottleneck at several rates, then a neck and a task
    head; out come (bits, accuracy) curves. With no options, `fcbench run` is a complete benchmark on embedded data.
    """
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")  # raised by timm
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
