"""Report what this installation has and lacks, and what the cache holds; prune the cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from fcbench.cli.options import cache_option
from fcbench.cli.say import say, size
from fcbench.core import cache_entries
from fcbench.core.cache_entries import Entry

_STALE = "what is stale"


@click.command("doctor")
@click.option("--cache", "of_cache", is_flag=True, help="Report what the cache holds: kinds, sizes, stale entries.")
@click.option(
    "--prune",
    metavar="[SIZE]",
    is_flag=False,
    flag_value=_STALE,
    help="Remove stale entries from the cache; with a size such as 10GB, then the oldest until the rest fits.",
)
@click.option("--verify-cache", "verify", is_flag=True, help="Read the whole cache; remove damaged files.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@cache_option
def doctor(of_cache: bool, prune: str | None, verify: bool, as_json: bool, cache_dir: Path) -> None:
    """Report what this installation has, what is missing and how to get it; or what the cache holds.

    Stale entries were made by other versions of the libraries, or of the encoder's code, than those installed, and
    would not be used again here. Removed files are made again when needed. No confirmation is asked for: a running
    fcbench may lose files that it has not read yet, and then makes them again.

    \b
    Examples:
      fcbench doctor
      fcbench doctor --cache
      fcbench doctor --prune 10GB
    """
    if of_cache or prune or verify:
        _cache(cache_dir, prune, verify, as_json)
        return
    from fcbench.cli import examine as checks

    examined = checks.examine(cache_dir)
    if as_json:
        say(json.dumps([{"what": c.what, "ok": c.ok, "found": c.found} for c in examined], indent=1))
    else:
        for check in examined:
            say(f"{'ok  ' if check.ok else 'MISS'}  {check.what}: {check.found}")
    if not all(c.ok for c in examined if c.needed):
        sys.exit(1)


def _cache(root: Path, prune: str | None, verify: bool, as_json: bool) -> None:
    """Check, prune and list a cache; exit status 1 if files were damaged."""
    limit = None if prune in (None, _STALE) else cache_entries.n_bytes_of(str(prune))
    entries = cache_entries.entries(root)
    damaged = list(cache_entries.damaged(entries)) if verify else []
    doomed = cache_entries.to_remove(entries, limit) if prune else []
    removed = [e for e in doomed if cache_entries.remove(e)]
    in_use = len(doomed) - len(removed)
    left = cache_entries.entries(root) if removed or damaged else entries
    if as_json:
        say(json.dumps(_as_json(root, left, removed, damaged), indent=1))
    else:
        for line in _lines(root, left):
            say(line)
        if verify:
            say(f"every file was read; {len(damaged)} damaged" + " and removed" * bool(damaged))
            for path in damaged:
                say(f"  {path}")
        if prune:
            kept = f"; {in_use} in use and kept" if in_use else ""
            say(f"removed {len(removed)} entries, {size(sum(e.n_bytes for e in removed))}{kept}")
    if damaged:
        sys.exit(1)


def _lines(root: Path, entries: Sequence[Entry]) -> Iterator[str]:
    yield f"{root}: {size(sum(e.n_bytes for e in entries))}"
    for kind, name in cache_entries.KINDS.items():
        of_kind = [e for e in entries if e.kind == kind]
        stale = [e for e in of_kind if e.stale]
        if of_kind:
            line = f"  {name:24} {len(of_kind):6}  {size(sum(e.n_bytes for e in of_kind)):>9}"
            reasons = ", ".join(dict.fromkeys(reason for e in stale for reason in e.stale))
            yield line + (f"  stale: {len(stale)}, {size(sum(e.n_bytes for e in stale))} ({reasons})" if stale else "")


def _as_json(root: Path, left: Sequence[Entry], removed: Sequence[Entry], damaged: Sequence[Path]) -> dict[str, Any]:
    def plain(entry: Entry) -> dict[str, Any]:
        about = {"kind": entry.kind, "path": str(entry.path), "n_bytes": entry.n_bytes, "made": entry.made}
        return about | {"stale": list(entry.stale)}

    lists = {"entries": [plain(e) for e in left], "removed": [plain(e) for e in removed]}
    return {"cache": str(root), **lists, "damaged": [str(p) for p in damaged]}


COMMAND = doctor
