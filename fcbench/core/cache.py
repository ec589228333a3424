"""Keys of what is kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(what: Mapping[str, Any]) -> str:
    """Key of what determines something: 20 hexadecimal digits."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:20]
