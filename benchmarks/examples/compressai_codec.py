"""A CompressAI model as a codec: a scale hyperprior over feature maps, trained by fcbench.

fcbench run --codec benchmarks/examples/compressai_codec.py
"""

import struct
import zlib

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel
from torch import nn

from fcbench.coders.strings import coding_numerics
from fcbench.core.codecs import Bitstream, CodecPlugin, Decoded
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features


class MapModel(nn.Module):
    """Model of one normalized map [B, C, h, w]."""

    def __init__(self, channels):
        super().__init__()
        m = 2 * channels
        self.g_a, self.h_a = nn.Conv2d(channels, m, 3, 2, 1), nn.Conv2d(m, m, 3, 2, 1)
        self.g_s, self.h_s = nn.ConvTranspose2d(m, channels, 4, 2, 1), nn.ConvTranspose2d(m, m, 4, 2, 1)
        self.bottleneck, self.conditional = EntropyBottleneck(m), GaussianConditional(None)

    def scales(self, z_hat, grid):
        return self.h_s(z_hat)[..., : grid[0], : grid[1]].exp()

    def forward(self, x):
        y = self.g_a(x)
        z_hat, z_likelihoods = self.bottleneck(self.h_a(y.abs()))
        y_hat, y_likelihoods = self.conditional(y, self.scales(z_hat, y.shape[-2:]))
        bits = [-p.log2().flatten(1).sum(1) for p in (y_likelihoods, z_likelihoods)]
        return self.g_s(y_hat)[..., : x.shape[-2], : x.shape[-1]], sum(bits)

    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y.abs())
        z_strings = self.bottleneck.compress(z)
        z_hat = self.bottleneck.decompress(z_strings, z.shape[-2:])
        scales = self.scales(z_hat, y.shape[-2:])
        (y_string,) = self.conditional.compress(y, self.conditional.build_indexes(scales))
        return z_strings[0], y_string

    def decompress(self, z_string, y_string, grid):
        y_grid, z_grid = [tuple(-(-n // k) for n in grid) for k in (2, 4)]
        z_hat = self.bottleneck.decompress([z_string], z_grid)
        scales = self.scales(z_hat, y_grid)
        y_hat = self.conditional.decompress([y_string], self.conditional.build_indexes(scales))
        return self.g_s(y_hat)[..., : grid[0], : grid[1]], torch.cat([z_hat.flatten(), y_hat.flatten()])


class Codec(CompressionModel):  # its load_state_dict knows tables of any size
    def __init__(self, specs, stats):
        super().__init__()
        self.specs = specs
        self.models = nn.ModuleList(MapModel(s.channels) for s in specs)
        for i, spec in enumerate(specs):
            self.register_buffer(f"mean{i}", stats[spec.name].mean.view(-1, 1, 1).clone())
            self.register_buffer(f"std{i}", stats[spec.name].std.view(-1, 1, 1).clone())

    def _normalized(self, maps):
        return [(maps[s.name] - getattr(self, f"mean{i}")) / getattr(self, f"std{i}") for i, s in enumerate(self.specs)]

    def _restored(self, maps):
        named = enumerate(zip(self.specs, maps))
        return {s.name: x * getattr(self, f"std{i}") + getattr(self, f"mean{i}") for i, (s, x) in named}

    def prepare(self, batches):
        pass

    def forward(self, maps):
        decoded, bits = zip(*[model(x) for model, x in zip(self.models, self._normalized(maps))])
        return self._restored(decoded), sum(bits)

    def estimate_bits(self, maps):
        return self(maps)[1]

    def freeze(self):
        self.cpu().eval()
        self.update(force=True, update_quantiles=True)

    @coding_numerics()  # one thread: the decoder must find the encoder's scales to the last bit
    def encode(self, features):
        maps = self._normalized(features.maps)
        if not all(bool(torch.isfinite(x).all()) for x in maps):
            raise FcbenchError("features with NaN or inf cannot be coded")
        strings = [string for model, x in zip(self.models, maps) for string in model.compress(x)]
        sizes = struct.pack(f"<{len(strings)}I", *map(len, strings))
        return Bitstream({"sizes": sizes, "strings": b"".join(strings)}, _n_symbols(self.specs, features.shapes), None)

    @coding_numerics()
    def decode(self, payload, grids):
        n = 2 * len(self.specs)
        sizes, rest = struct.unpack_from(f"<{n}I", payload), payload[4 * n :]
        if sum(sizes) != len(rest) or min(sizes) < 4:
            raise FcbenchError("damaged payload")
        strings = iter([rest[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(n)])
        found = [m.decompress(next(strings), next(strings), grids[s.name]) for m, s in zip(self.models, self.specs)]
        latents = torch.cat([latent for _, latent in found])
        check = zlib.crc32(latents.numpy().tobytes()) & 0xFFFF
        return Decoded(Features(self._restored([x for x, _ in found])), _n_symbols(self.specs, grids), check)


def _n_symbols(specs, grids):
    """Number of symbols of y and z, which have half and a quarter of the size."""
    return sum(2 * s.channels * -(-grids[s.name][0] // k) * -(-grids[s.name][1] // k) for s in specs for k in (2, 4))


class Plugin(CodecPlugin):
    trained = True

    def sweep(self, objective):
        return [{"lmbda": lmbda} for lmbda in (0.1, 0.5, 2.0, 10.0)]

    def build(self, specs, stats, params):
        if set(params) != {"lmbda"}:
            raise FcbenchError(f"compressai_codec has the knob lmbda, got {dict(params)}")
        return Codec(specs, stats)


PLUGIN = Plugin()
