"""Say what this installation has and what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from fcbench.cli.options import cache_option
from fcbench.cli.say import say


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@cache_option
def doctor(as_json: bool, cache_dir: Path) -> None:
    """Say what this installation has, what is missing and how to get it.

    \b
    Example:
      fcbench doctor
    """
    from fcbench.cli import examine as checks

    found = checks.examine(cache_dir)
    if as_json:
        say(json.dumps([{"what": c.what, "ok": c.ok, "found": c.found} for c in found], indent=1))
    else:
        for check in found:
            say(f"{'ok  ' if check.ok else 'MISS'}  {check.what}: {check.found}")
    if not all(c.ok for c in found if c.needed):
        sys.exit(1)


COMMAND = doctor
