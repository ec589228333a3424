"""CompressAI's pretrained mean-scale hyperprior for images (MSE), weights from torch's hub cache.

Nothing is downloaded: if the weights are not in the cache, an error says which file belongs where. A file is a seal
(16-bit CRC: CompressAI's decoder crashes on damaged strings), image and latent size, and the two strings y and z.

References: Minnen, Balle, Toderici, Joint autoregressive and hierarchical priors for learned image compression, NIPS
2018; Begaint et al., CompressAI, arXiv 2011.03029.
"""

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fcbench.coders.foreign import PictureCoder, guarded, package_version, seal, unseal
from fcbench.coders.varint import Cursor
from fcbench.core.errors import FcbenchError
from fcbench.images.shared.coder import ImageCodec, rgb_of

_MODEL = "mbt2018-mean"
_MULTIPLE_PX = 64
_HEAD = struct.Struct("<BHHHHI")  # Quality, image height and width, z height and width, bytes of y


def weights_path(quality: int) -> Path:
    """File of the weights of a quality, 1 to 8, in torch's hub cache."""
    import torch
    from compressai.zoo.image import model_urls

    name = str(model_urls[_MODEL]["mse"][quality]).rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


@lru_cache(maxsize=2)
def _model(quality: int) -> Any:
    from compressai.zoo import image_models
    from compressai.zoo.image import model_urls

    path = weights_path(quality)
    if not path.is_file():
        raise FcbenchError(
            f"weights of {_MODEL} quality {quality} are not in torch's hub cache: download "
            f"{model_urls[_MODEL]['mse'][quality]} into {path.parent}"
        )
    build = image_models[_MODEL]
    return guarded(_MODEL, build, quality, metric="mse", pretrained=True).eval()


def _compress(image: np.ndarray, quality: int) -> bytes:
    import torch

    from fcbench.coders.strings import coding_numerics

    height, width = image.shape[:2]
    if max(height, width) > 0xFFFF:
        raise FcbenchError(f"an image of {height}x{width} exceeds 65535 pixels per side")
    model = _model(quality)
    pads = [(0, -n % _MULTIPLE_PX) for n in (height, width)]
    padded = np.pad(rgb_of(image.transpose(2, 0, 1)), [*pads, (0, 0)], mode="edge")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    with coding_numerics():
        out = model.compress(x)
    (y,), (z,) = out["strings"]
    h, w = map(int, out["shape"])
    data = _HEAD.pack(quality, height, width, h, w, len(y)) + y + z
    return seal(data) + data


def _decompress(data: bytes) -> np.ndarray:
    from io import BytesIO

    from fcbench.coders.strings import coding_numerics

    cursor = Cursor(BytesIO(data), len(data), _MODEL)
    quality, height, width, h, w, n_y = _HEAD.unpack(cursor.take(_HEAD.size))
    y = cursor.take(n_y)
    z = cursor.take(len(data) - cursor.at)
    with coding_numerics():
        x = _model(quality).decompress([[y], [z]], (h, w))["x_hat"]
    image = (x[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return image[:height, :width]


def _versions() -> dict[str, str]:
    return {**package_version("compressai"), "compressai_model": _MODEL}


_CODER = PictureCoder(
    lambda image, quality, bits: guarded(_MODEL, _compress, image, round(quality)),
    lambda data, size, bits: guarded(_MODEL, _decompress, unseal(data)),
    _versions,
)
PLUGIN = ImageCodec("compressai_image", "quality", 1, 8, tuple(range(1, 9)), _CODER)
