"""A GPU gives what the CPU gives. Skipped without one; ``FCBENCH_TEST_DEVICE=cpu`` runs the tests anyway."""

from __future__ import annotations

import os

import pytest
import torch

from fcbench.measure.study import device_of


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that is compared with the CPU."""
    name = os.environ.get("FCBENCH_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return device_of(name)
