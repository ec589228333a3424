"""The contracts, tried on plug-ins from outside: what an author writes is three lines."""

from __future__ import annotations

from pathlib import Path

from fcbench.testing.codecs import CodecContract
from fcbench.testing.datasets import DatasetContract
from fcbench.testing.tasks import TaskContract

EXAMPLES = Path(__file__).parents[2] / "benchmarks" / "examples"


class TestZlib(CodecContract):
    plugin = EXAMPLES / "zlib_codec.py"


class TestCompressai(CodecContract):
    """An ordinary CompressAI model: nothing in it comes from fcbench but the data that go in and out."""

    plugin = EXAMPLES / "compressai_codec.py"


class TestDots(DatasetContract):
    plugin = EXAMPLES / "dots.py"


class TestCounting(TaskContract):
    plugin = EXAMPLES / "counting.py"
    dataset = EXAMPLES / "dots.py"
