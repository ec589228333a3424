"""Weights of a quantized ``.tflite`` file in float32, under the names of a timm network."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.encoders.shared.weights import other_architecture

ORDER = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}
"""Layers that have weights -> their axes in PyTorch's order."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or linear layer; those who published it folded its batch normalization into it."""

    weight: Tensor  # float32 [O, I, h, w]; [O, I] of a linear layer
    bias: Tensor  # float32 [O]
    output: int  # place of what it puts out among the file's tensors


def layers_of(path: Path) -> list[Layer]:
    """The layers of a file that have weights, in order of execution. Raises `FcbenchError`: the file is missing or
    damaged, or the package that reads it is not installed."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as exc:
        raise FcbenchError(f"reading {path.name} needs ai-edge-litert: pip install fcbench[tflite]") from exc
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name in ORDER}
    try:
        return list(_layers(schema.ModelT.InitFromPackedBuf(path.read_bytes()), names))
    except OSError as exc:
        raise FcbenchError(f"cannot read weights {path}: {exc.strerror}") from exc
    except Exception as exc:  # damaged files fail in as many ways as there are bytes
        raise FcbenchError(f"weights {path} are damaged ({type(exc).__name__}): fetch or save the file again") from exc


def _layers(model: Any, names: Mapping[int, str]) -> Iterator[Layer]:
    graph = model.subgraphs[0]
    for op in graph.operators:
        if name := names.get(model.operatorCodes[op.opcodeIndex].builtinCode):
            weight, bias = (_dequantized(model, graph.tensors[i], kind) for i, kind in zip(op.inputs[1:], ("u1", "i4")))
            yield Layer(weight.permute(ORDER[name]).contiguous(), bias, int(op.outputs[0]))


def _dequantized(model: Any, tensor: Any, kind: str) -> Tensor:
    (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zeroPoint  # of the whole tensor
    integers = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(kind).reshape(tensor.shape)
    return torch.from_numpy((integers.astype(np.float32) - np.float32(zero)) * np.float32(scale))


def state_of(path: Path, network: nn.Module, name: str) -> dict[str, Tensor]:
    """A state dict of a timm network from a file that holds its layers, and perhaps others behind them.

    Each batch normalization passes its input on (mean 0, variance 1) and adds the bias. Of a classifier with one output
    more than the network has, the first is left out: it stands for no class. `name`: as typed, for messages. Raises
    `FcbenchError`: as `layers_of`, or another architecture.
    """
    state, layers = dict(network.state_dict()), iter(layers_of(path))
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    parts = [(n, m) for n, m in network.named_modules() if isinstance(m, kinds)]
    for (part, module), (norm, after) in zip(parts, [*parts[1:], ("", None)]):
        if isinstance(module, nn.BatchNorm2d):
            continue
        layer, shape = next(layers, None), state[f"{part}.weight"].shape
        if layer is None:
            raise other_architecture(f"weights {path}", name, f"missing {part}.weight")
        weight, bias = layer.weight, layer.bias
        if isinstance(after, nn.BatchNorm2d):
            state |= {f"{norm}.bias": bias, f"{norm}.weight": torch.full_like(bias, math.sqrt(1 + after.eps))}
        else:
            weight = weight.flatten(1) if isinstance(module, nn.Linear) else weight
            weight, state[f"{part}.bias"] = weight[-shape[0] :], bias[-shape[0] :]
        if weight.shape != shape:
            different = f"{part}.weight is {list(weight.shape)} instead of {list(shape)}"
            raise other_architecture(f"weights {path}", name, different)
        state[f"{part}.weight"] = weight
    return state
