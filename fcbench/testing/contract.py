"""Base of the contracts of plug-ins that are known by name."""

from pathlib import Path
from typing import ClassVar

import pytest

from fcbench.core import registry


class Contract:
    """Subclass a kind's contract in a test module and set `plugin`."""

    kind: ClassVar[str]  # of the plug-in; set by the kind's contract
    plugin: ClassVar[str | Path]  # name of the plug-in, or path of its file

    @pytest.fixture(scope="class")
    @classmethod
    def name(cls) -> str:
        return registry.use(cls.kind, str(cls.plugin))
