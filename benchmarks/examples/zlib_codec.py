"""A codec in one file: steps of ``step`` standard deviations per channel, then zlib.

fcbench run --codec benchmarks/examples/zlib_codec.py
"""

import zlib

import numpy as np
import torch

from fcbench.codecs.shared.base import CodecBase
from fcbench.coders.strings import checksum
from fcbench.core.codecs import Bitstream, CodecPlugin, Decoded, number, only
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features


class ZlibCodec(CodecBase):  # keeps the training statistics, checks its input
    def __init__(self, specs, stats, step):
        super().__init__(specs, stats)
        self.step = step

    def encode(self, features):
        maps = [s.normalize(x) / self.step for s, x in zip(self.map_stats, self.sample(features))]
        levels = np.concatenate([x.round().clamp(-32768, 32767).numpy().ravel() for x in maps]).astype("<i2")
        return Bitstream({"levels": zlib.compress(levels.tobytes(), 9)}, levels.size, checksum(levels))

    def decode(self, payload, grids):
        shapes = [(1, s.channels, *hw) for s, hw in zip(self.specs, self.grid(grids))]
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        try:
            levels = np.frombuffer(zlib.decompress(payload), "<i2")
            parts = [x.reshape(s) for x, s in zip(np.split(levels, ends[:-1]), shapes)]
        except (zlib.error, ValueError) as error:
            raise FcbenchError(f"damaged payload: {error}") from None
        maps = [s.restore(torch.from_numpy(x.astype("f4")) * self.step) for s, x in zip(self.map_stats, parts)]
        return Decoded(Features(self.named(maps)), levels.size, checksum(levels))


class Plugin(CodecPlugin):
    def sweep(self, objective):
        return [{"step": step} for step in (4.0, 2.0, 1.0, 0.5, 0.25)]

    def build(self, specs, stats, params):
        only(params, "codec 'zlib_codec'", "step")
        return ZlibCodec(specs, stats, number(params, "step", 1e-3, 1e3))


PLUGIN = Plugin()
