"""What a case is, and how it can end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, Protocol


class Outcome(str, Enum):
    """How a case ended."""

    REFUSED = "refused"  # one clear error
    SAME = "same"  # the same result as of the clean file
    OTHER = "other"  # another finite result of the right shape: all checksums were made right, so nothing can tell
    CONTAINED = "contained"  # a library behind corrected checksums ended its process, which `decode` gives it for that
    TRACEBACK = "traceback"  # an error that is not ours
    WRONG = "wrong"  # another result, though a checksum should have told
    MEMORY = "memory"
    CRASH = "crash"
    HANG = "hang"

    def __str__(self) -> str:
        return str(self.value)


FAILURES = (Outcome.TRACEBACK, Outcome.WRONG, Outcome.MEMORY, Outcome.CRASH, Outcome.HANG)


@dataclass(frozen=True, slots=True)
class Case:
    """Hostile input to a subject; plain data, so that it can be kept as a file."""

    subject: str
    kind: str
    data: Mapping[str, Any]  # JSON data and bytes


class Subject(Protocol):
    """What is given hostile input."""

    name: str
    weight: float  # share of the cases

    def draw(self, rng: Random) -> Case:
        """A case."""

    def run(self, case: Case) -> Outcome:
        """Its outcome. Raises whatever the input gives rise to."""

    def contains(self, case: Case) -> bool:
        """Whether what decodes such a case in earnest is a process that may end."""


def kept(case: Case) -> str:
    """A case as the text of a file."""
    data = {k: {"hex": v.hex()} if isinstance(v, bytes) else v for k, v in case.data.items()}
    return json.dumps({"subject": case.subject, "kind": case.kind, "data": data}, indent=1) + "\n"


def read(path: Path) -> Case:
    """Inverse of `kept`."""
    found = json.loads(path.read_text())
    data = {k: bytes.fromhex(v["hex"]) if isinstance(v, dict) and "hex" in v else v for k, v in found["data"].items()}
    return Case(found["subject"], found["kind"], data)
