"""Memory is flat in the number of samples."""

from __future__ import annotations

import pytest

from benchmarks import memory


@pytest.mark.slow
@pytest.mark.parametrize("store", [True, False])
def test_no_stage_needs_more_memory_for_more_samples(store: bool) -> None:
    for stage, each in memory.costs((200, 800), store_features=store).items():
        assert each[1].peak_mib < memory.FLAT * each[0].peak_mib, stage
