"""``hf:NAME``: a vision transformer of the package ``transformers``, by name or folder, weights as safetensors only.

``hf:facebook/dinov2-small``, ``hf:openai/clip-vit-base-patch32`` or ``hf:OWNER/NAME@REVISION`` are read from the hub or
its cache; ``hf:FOLDER`` from a folder as `save_pretrained` writes it. Of a model of images and text (CLIP, SigLIP) the
image part is taken. With ``--weights FILE`` the configuration beside that file counts. Random weights need the
configuration alone, ``config.json``; images are then normalized as for ImageNet. Code from the hub is never run.

Split points: ``block1`` to ``blockN``, a block's output as a map, before the final norm; ``block1.global`` to
``blockN.global``, its tokens without a place (class, registers), where it has some; ``tokens1`` to ``tokensN``, both
together. The default is the last block. Images are normalized as the model's own preprocessing does, and not resized;
sides that are not multiples of a patch are padded (edge pixels repeated, right and below).

The rows' SHA-256 is one over the weights, the configuration and the preprocessing.

Needs ``pip install ".[transformers]"``.
"""

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import GLOBAL, EncoderPlugin, FeatureSpec, WeightsInfo
from fcbench.encoders.shared import huggingface
from fcbench.encoders.shared.huggingface import CONFIG
from fcbench.encoders.shared.padded import IMAGENET
from fcbench.encoders.shared.stopping import makers, outputs
from fcbench.encoders.shared.tokens import TokenEncoder, global_specs, token_groups
from fcbench.encoders.shared.weights import file_sha256, hub_file

WEIGHTS, PREPROCESSING = "model.safetensors", "preprocessor_config.json"
Normalization = tuple[Sequence[float], Sequence[float]]
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")


class TransformersEncoder(TokenEncoder):
    """A frozen vision transformer of the package transformers, cut at its blocks."""

    def __init__(
        self, name: str, module: nn.Module, normalization: Normalization, weights: WeightsInfo, device: torch.device
    ) -> None:
        """Freeze a model with its weights. `name`: as typed. `module`: the package's model. `normalization`: mean and
        deviation of RGB in [0, 1]. `weights`: their origin. `device`: where it runs. Raises `FcbenchError`: its hidden
        states are not the tokens of a grid."""
        takes_any_size = "interpolate_pos_encoding" in inspect.signature(module.forward).parameters
        self._how = {"interpolate_pos_encoding": True} if takes_any_size else {}
        self.normalization, self.multiple_px = normalization, patch_px(name, module)
        n_blocks, channels, self.n_global = self._layout(name, module.eval())
        names = [f"block{i + 1}" for i in range(n_blocks)]
        blocks = {n: FeatureSpec(n, channels, self.multiple_px) for n in names}
        tokens = blocks if self.n_global else {}
        super().__init__(name, module, blocks | global_specs(tokens), weights, device)
        self.groups, self.default_split_point = token_groups(tokens), names[-1]

    @torch.inference_mode()
    def _layout(self, name: str, module: nn.Module) -> tuple[int, int, int]:
        """Number of blocks, channels, and number of tokens in front of those of the grid.

        Three images of 2 x 3 patches, of which the second and the third differ from the first in the patch at the end
        of the first row and at the start of the second row: their tokens must change most.
        """
        patch = self.multiple_px
        images = torch.zeros(3, 3, 2 * patch, 3 * patch)
        images[1, :, :patch, -patch:] = images[2, :, patch:, :patch] = 1
        try:
            first, *blocks = self._hidden(module, images)
            self._makers = makers(module, lambda: self._hidden(module, images)[1:])
            n_tokens, channels = first.shape[1:]
            changed = (first[1:] - first[:1]).abs().amax(2).argmax(1).tolist()
        except Exception as exc:  # its classes may raise anything
            raise _no_tokens(name, (str(exc).splitlines() or [type(exc).__name__])[0]) from exc
        n_global = n_tokens - 2 * 3
        if changed != [n_global + 2, n_global + 3] or any(x.shape != first.shape for x in blocks):
            shapes = ", ".join(str(list(x.shape[1:])) for x in (first, *blocks))
            raise _no_tokens(name, f"of 2 x 3 patches they are {shapes}")
        return len(blocks), channels, n_global

    def _hidden(self, module: nn.Module, x: Tensor) -> Sequence[Tensor]:
        """[B, N, C] before the first block, and after each one."""
        found: Sequence[Tensor] = module(x, output_hidden_states=True, **self._how).hidden_states
        return found

    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        grid = (x.shape[-2] // self.multiple_px, x.shape[-1] // self.multiple_px)
        n = max(int(name.removeprefix("block").removesuffix(GLOBAL)) for name in split_points)
        maps = {}
        for i, hidden in enumerate(outputs(self._makers[:n], lambda: self._hidden(self.module, x)[1:])):
            tokens = hidden.transpose(1, 2)  # [B, C, N]
            maps[f"block{i + 1}"] = tokens[..., self.n_global :].unflatten(2, grid)
            maps[f"block{i + 1}{GLOBAL}"] = tokens[..., None, : self.n_global]
        return maps


def patch_px(name: str, module: Any) -> int:
    """Side of a patch. Raises `FcbenchError`: the model has no square patches."""
    sides = getattr(module.config, "patch_size", None)
    first, *others = sides if isinstance(sides, (list, tuple)) else [sides]
    if not isinstance(first, int) or any(side != first for side in others):
        raise _no_tokens(name, f"its patch_size is {sides}")
    return first


def _no_tokens(name: str, reason: str) -> FcbenchError:
    return FcbenchError(
        f"{name}: its hidden states are not the tokens of square patches, row by row ({reason}): choose a vision "
        "transformer such as hf:facebook/dinov2-small; timm:NAME has other networks"
    )


def class_and_config(name: str, path: Path) -> tuple[Any, Any]:
    """The package's class and configuration of the images' part of a model. `path`: its ``config.json``. Raises
    `FcbenchError`: it cannot be read, or is of no vision model of the package."""
    library, values = huggingface.library(), huggingface.read_values(path)
    kind = values.get("model_type")
    if kind not in library.CONFIG_MAPPING:
        raise FcbenchError(
            f"{name}: {path} is of a {kind!r} model, which transformers {library.__version__} does not have; code from "
            "the hub is never run"
        )
    config = huggingface.read_config(path, library.CONFIG_MAPPING[kind])
    config = getattr(config, "vision_config", config)
    model_class = library.MODEL_MAPPING.get(type(config), None)
    takes = getattr(model_class, "main_input_name", "nothing that AutoModel knows")
    if takes != "pixel_values":
        raise FcbenchError(f"{name}: a {kind!r} model is no vision model: it takes {takes}")
    return model_class, config


def normalization_of(path: Path) -> Normalization:
    """Mean and deviation of RGB in [0, 1] of a ``preprocessor_config.json``. Raises `FcbenchError`: it is damaged, or
    does not say them."""
    values = huggingface.read_values(path)
    try:
        scale = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255
        mean, std = [0] * 3, [1] * 3
        if values.get("do_normalize", True):
            mean, std = values["image_mean"], values["image_std"]
        return [m / scale for m in mean], [s / scale for s in std]
    except (KeyError, TypeError) as exc:
        raise FcbenchError(
            f"{path} does not say image_mean and image_std: give the model's folder as published"
        ) from exc


def _config_file(name: str, source: str) -> Path:
    """The configuration of a folder, or of a repository on the hub."""
    if Path(source).is_dir():
        return Path(source) / CONFIG
    hint = f"For random weights, hf:FOLDER of a folder with a {CONFIG} is enough. "
    return hub_file(name, source, (CONFIG,), hint)


@dataclass(frozen=True)
class Plugin(EncoderPlugin):
    """Any vision transformer of the package transformers."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> TransformersEncoder:
        name = f"hf:{variant}"
        huggingface.library()
        is_folder = bool(variant) and Path(variant).is_dir()
        if not is_folder and not _REPOSITORY.fullmatch(variant):
            raise FcbenchError(f"{name}: give a folder here, or OWNER/NAME of the hub: hf:facebook/dinov2-small")
        if weights == "random":
            files = [_config_file(name, variant)]
        else:
            given = weights or (variant if is_folder else None)
            path, origin = huggingface.find(name, given, variant, ((PREPROCESSING,),), (WEIGHTS,))
            if path.suffix != ".safetensors":
                raise FcbenchError(f"{name}: weights {path} end in {path.suffix!r}: only .safetensors files are read")
            files = [path.parent / CONFIG, path.parent / PREPROCESSING]
        model_class, config = class_and_config(name, files[0])
        pooling = "add_pooling_layer" in inspect.signature(model_class).parameters
        how = {"add_pooling_layer": False} if pooling else {}  # which many files lack, and no split point needs
        if weights == "random":
            module, info = huggingface.random_model(model_class, config, **how)
        else:
            module, info = huggingface.load(name, model_class, path, origin, config, **how)
        normalization = IMAGENET if weights == "random" else normalization_of(files[1])
        return TransformersEncoder(name, module, normalization, _of_all(info, files), device)


def _of_all(info: WeightsInfo, files: Sequence[Path]) -> WeightsInfo:
    """The origin of weights, with a SHA-256 over them and further files."""
    hashes = [info.sha256, *(file_sha256(path) for path in files)]
    return replace(info, sha256=hashlib.sha256(" ".join(hashes).encode()).hexdigest())


PLUGIN = Plugin()
