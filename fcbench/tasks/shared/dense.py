"""The decoder of dense tasks: from the neck's grid to maps at stride 4, and from there to the image.

If the encoder padded the image to whole strides (360 px at stride 16 give 23 cells, 368 px), the grid covers more than
the image, from its top left corner: maps are then cropped, not squeezed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE_PX = 4  # Stride at which dense heads predict


def coverage_px(grid: tuple[int, int], image_px: tuple[int, int]) -> tuple[int, int]:
    """(H, W) in pixels that a grid covers, from the image's top left corner.

    Whole strides if (h, w) = ceil((H, W) / s) for a power of two s; the image itself if not.

    >>> coverage_px((23, 30), (360, 480))
    (368, 480)
    """
    (h, w), (height, width) = grid, image_px
    stride = 2 ** max(0, round(math.log2(math.sqrt(height * width / (h * w)))))
    if (h, w) == (-(-height // stride), -(-width // stride)):
        return h * stride, w * stride
    return image_px


def n_doublings(grid: tuple[int, int], image_px: tuple[int, int]) -> int:
    """Doublings from the grid to about `STRIDE_PX`.

    >>> n_doublings((8, 8), (128, 128))
    2
    """
    (h, w), (height, width) = grid, image_px
    stride = math.sqrt(height * width / (h * w))
    return max(0, round(math.log2(stride / STRIDE_PX)))


class Refine(nn.Module):
    """1x1 convolution, pixel shuffle, depthwise 3x3 with a shortcut, GELU."""

    def __init__(self, c_in: int, c_out: int, factor: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(c_in, c_out * factor**2, 1)
        self.shuffle = nn.PixelShuffle(factor)
        self.mix = nn.Conv2d(c_out, c_out, 3, padding=1, groups=c_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, h, w] to [B, c_out, h factor, w factor]."""
        x = self.shuffle(self.expand(x))
        return F.gelu(x + self.mix(x))


class DenseHead(nn.Module):
    """Maps at about stride 4 of the image: [B, D, h, w] to [B, n_out, h', w'].

    Every doubling but the last is followed by a depthwise convolution; the last is the output layer's pixel shuffle.
    Everything is channels-last, which trains up to twice as fast on a CPU. `width`: D. `grid`: (h, w) of the neck's
    output. `image_px`: (H, W) of the images and of their target maps. `n_out`: channels of the maps.
    """

    def __init__(self, width: int, grid: tuple[int, int], image_px: tuple[int, int], n_out: int) -> None:
        super().__init__()
        self.image_px = image_px
        self.cover_px = coverage_px(grid, image_px)
        n = n_doublings(grid, image_px)
        factors = [2] * (n - 1) if n > 1 else [1]
        channels = [width] + [max(32, 64 >> i) for i in range(len(factors))]
        self.body = nn.Sequential(*(Refine(a, b, f) for a, b, f in zip(channels, channels[1:], factors)))
        last = 2 if n else 1
        self.out = nn.Conv2d(channels[-1], n_out * last**2, 1)
        self.shuffle = nn.PixelShuffle(last)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n_out, h', w']. A sample that is expanded to B, as for null models, is computed once."""
        n_same = len(x) if x.stride(0) == 0 else 1
        x = (x[:1] if n_same > 1 else x).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.shuffle(self.out(self.body(x)))
        return out.expand(n_same, -1, -1, -1) if n_same > 1 else out

    def full(self, maps: Tensor) -> Tensor:
        """Maps at the image's size: [B, n_out, h', w'] to [B, n_out, H, W], bilinear."""
        height, width = self.image_px
        big = F.interpolate(maps, size=self.cover_px, mode="bilinear")
        return big[..., :height, :width]

    def at_centres(self, target: Tensor, size: tuple[int, int], fill: int) -> Tensor:
        """Target pixels under the centres of the head's cells: [B, H, W] to [B, h', w']. Cells whose centre is outside
        the image get ``fill``."""
        height, width = self.image_px
        padded = F.pad(target, (0, self.cover_px[1] - width, 0, self.cover_px[0] - height), value=fill)
        ys, xs = (
            ((torch.arange(n, device=target.device) + 0.5) * (cover / n)).long()
            for n, cover in zip(size, self.cover_px)
        )
        return padded[:, ys[:, None], xs[None, :]]
