"""Records of trainings, stored beside the models."""

from __future__ import annotations

import json
from pathlib import Path

from fcbench.core.cache import CACHE_HINT, TRAINING_SUFFIX
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.training.convergence import Gain, Look, Record


def keep(path: Path, record: Record) -> None:
    """Write the record of a model before its file is written to the cache."""
    write_atomically(_file(path), json.dumps(record), CACHE_HINT)


def of(path: Path) -> Record:
    """Record of the training of a cached model.

    Raises:
        FcbenchError: the record is missing or unreadable.
    """
    try:
        steps, seconds, stop, gain, curve = json.loads(_file(path).read_bytes())
        return Record(steps, seconds, stop, Gain(*gain), tuple(Look(*look) for look in curve))
    except (OSError, ValueError, TypeError) as error:
        raise FcbenchError(f"no training record of {path} ({error}): delete it and run again") from error


def _file(path: Path) -> Path:
    return path.with_name(path.name + TRAINING_SUFFIX)
