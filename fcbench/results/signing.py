"""The signature of a folder: the sha256 of each of its files and of their list, kept in `provenance.json`.

It shows that nothing changed since. It does not show who signed: whoever changes a file can sign again, and the folder
then has another hash than the one that was published.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fcbench.core.errors import FcbenchError
from fcbench.core.files import disk_errors, sha256_of, write_atomically
from fcbench.results.checks import Checks
from fcbench.results.folder import PROVENANCE, read_provenance
from fcbench.results.provenance import utc_now

SIGNED = "signed"  # Field of `provenance.json`


def sign(folder: Path) -> str:
    """Write the signature of a folder, in place of an older one. Returns its hash. Raises `FcbenchError`: no readable
    `provenance.json`, or a disk error."""
    contents, files = read_provenance(folder), _hashes(folder)
    contents[SIGNED] = {"utc": utc_now(), "sha256": _of_list(files), "files": files}
    write_atomically(folder / PROVENANCE, json.dumps(contents, indent=1) + "\n")
    return _of_list(files)


def check(folder: Path, checks: Checks) -> str:
    """Compare a folder with its signature. Returns what to say of it. Raises `FcbenchError`: an unreadable file."""
    signed = read_provenance(folder).get(SIGNED) if (folder / PROVENANCE).exists() else None
    if signed is None:
        return "not signed"
    try:
        utc, total = str(signed["utc"]), str(signed["sha256"])
        then = {str(name): str(digest) for name, digest in signed["files"].items()}
    except (KeyError, TypeError, AttributeError):
        raise FcbenchError(f"the field {SIGNED!r} of {folder / PROVENANCE} is damaged; sign again.") from None
    now = _hashes(folder)
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            what = "missing" if name not in now else "changed" if name in then else "added"
            checks.fault(f"{what} since the folder was signed ({utc})", name)
    if total != _of_list(then):
        checks.fault("the signature's hash is not that of its list of files", PROVENANCE)
    state = "unchanged since" if now == then else "changed since (if that is meant, sign again)"
    return f"signed {utc}, {state}, sha256 {total}"


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 of each file by its path below a folder. Hidden ones are left out: locks and unfinished files. That of
    `provenance.json` is of its contents, as JSON with sorted keys, without the signature."""
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    with disk_errors(folder):
        hashes = {name.as_posix(): sha256_of(folder / name) for name in shown}
    contents = {k: v for k, v in read_provenance(folder).items() if k != SIGNED}
    return hashes | {PROVENANCE: hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()}


def _of_list(files: Mapping[str, str]) -> str:
    """sha256 of a list of files in the format of the program ``sha256sum``, sorted by name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()
