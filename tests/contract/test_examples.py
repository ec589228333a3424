"""The contract of codecs, tried on codecs from outside: what an author writes is three lines."""

from __future__ import annotations

from pathlib import Path

from fcbench.testing.codecs import CodecContract

EXAMPLES = Path(__file__).parents[2] / "benchmarks" / "examples"


class TestZlib(CodecContract):
    plugin = EXAMPLES / "zlib_codec.py"


class TestCompressai(CodecContract):
    """An ordinary CompressAI model: nothing in it comes from fcbench but the data that go in and out."""

    plugin = EXAMPLES / "compressai_codec.py"
