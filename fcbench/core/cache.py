"""The cache: where what was made once is kept, and how it is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcbench.core.files import disk_errors

CACHE_HINT = "give another --cache-dir"


def digest(what: Mapping[str, Any]) -> str:
    """Key of all that determines a result: 20 hexadecimal digits.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache folder."""

    root: Path

    @property
    def features(self) -> Path:
        """Folder of the feature sets, one folder per set."""
        return self.root / "features"

    @property
    def models(self) -> Path:
        """Folder of trained readouts and codecs, and of what is counted once."""
        return self.root / "models"

    def model(self, kind: str, key: str, suffix: str = ".safetensors") -> Path:
        """File of a trained model of a kind (``task``, ``codec``, ...)."""
        return self.models / f"{kind}-{key}{suffix}"

    def make(self) -> Cache:
        """Make the folders.

        Raises:
            FcbenchError: the cache cannot be used.
        """
        with disk_errors(self.root, CACHE_HINT):
            self.models.mkdir(parents=True, exist_ok=True)
        return self
