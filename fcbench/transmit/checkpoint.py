"""A codec's checkpoint: one safetensors file that builds the codec anew, without the training set.

The metadata holds the codec's name, parameters and specs, the encoder whose features it was made for, and a digest of
all contents, since safetensors loads a file with flipped bits silently. For a plug-in from outside it also holds the
plug-in's origin (`fcbench.core.registry.origin`) and, where that is a file, its path: no other plug-in may decode.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.codecs import Codec, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.core.files import write_atomically

_KEY = "fcbench_codec"
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Source:
    """The encoder whose features a codec was made for: as typed, and the sha256 of its weights."""

    encoder: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a checkpoint holds.

    Attributes:
        codec: frozen, in eval mode, on the CPU.
        sha256: of the file, hexadecimal.
    """

    codec: Codec
    point: OperatingPoint
    specs: tuple[FeatureSpec, ...]
    sha256: str
    source: Source


def save(path: Path, codec: nn.Module, point: OperatingPoint, specs: tuple[FeatureSpec, ...], source: Source) -> str:
    """Write a frozen codec, atomically.

    Returns:
        sha256 of the file, hexadecimal.

    Raises:
        FcbenchError: the file cannot be written.
    """
    write_atomically(path, data := as_bytes(codec, point, specs, source))
    return hashlib.sha256(data).hexdigest()


def as_bytes(codec: nn.Module, point: OperatingPoint, specs: tuple[FeatureSpec, ...], source: Source) -> bytes:
    """A frozen codec as a checkpoint file."""
    state = {k: v.detach().cpu().contiguous() for k, v in codec.state_dict().items()}
    meta: dict[str, Any] = {
        "version": _VERSION,
        "codec": point.codec,
        "params": dict(point.params),
        "specs": [asdict(s) for s in specs],
        "source": asdict(source),
    }
    if origin := registry.origin("codec", point.codec):
        meta |= {"origin": origin, "file": str(registry.file_of("codec", point.codec) or "")}
    meta["digest"] = _digest(meta, state)
    return safetensors.save(state, {_KEY: json.dumps(meta, sort_keys=True)})


def load(path: Path) -> Loaded:
    """Build the codec of a checkpoint.

    Raises:
        FcbenchError: no such file, not a codec's checkpoint, damaged, of another version, or of a codec that is unknown
            or differs from the one that made it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FcbenchError(f"cannot read the codec checkpoint {path}: {error.strerror}") from None
    try:
        state = safetensors.load(data)
        n_header = int.from_bytes(data[:8], "little")
        meta = json.loads(json.loads(data[8 : 8 + n_header])["__metadata__"][_KEY])
        version, digest = meta["version"], meta.pop("digest")
        point = OperatingPoint(meta["codec"], meta["params"])
        specs = tuple(FeatureSpec(**s) for s in meta["specs"])
        source = Source(**meta["source"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FcbenchError(f"{path} is not an fcbench codec checkpoint, or is damaged ({_line(error)})") from None
    if version != _VERSION:
        raise FcbenchError(f"codec checkpoint {path} has version {version}, this fcbench reads {_VERSION}: update it")
    if digest != _digest(meta, state):
        raise FcbenchError(f"codec checkpoint {path} is damaged: its contents do not match their digest")
    _require_plugin(path, point.codec, meta.get("origin", {}), meta.get("file", ""))
    codec = _build(path, point, specs, state)
    return Loaded(codec, point, specs, hashlib.sha256(data).hexdigest(), source)


def _require_plugin(path: Path, name: str, origin: Mapping[str, str], file: str) -> None:
    """Have the very plug-in that made a checkpoint: built-in, installed, a file in use, or the file it was read from.

    Raises:
        FcbenchError: it is not here, or another file or version is.
    """
    here = registry.origin("codec", name) if name in registry.names("codec") else {}
    if not here and file and Path(file).is_file():
        here = {Path(file).name: f"sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}"}
        if here == origin:
            registry.use("codec", file)
    if here == origin:
        return
    wanted, found = (", ".join(f"{k} {v[:23]}" for k, v in o.items()) for o in (origin, here))
    if file:
        advice = f"give --codec FILE, the {Path(file).name} it was made with"
    elif origin:
        advice = "pip install " + " ".join(f"{k}=={v}" for k, v in origin.items())
    else:
        wanted, advice = "fcbench itself", "rename the other one"
    raise FcbenchError(
        f"checkpoint {path} was made by codec {name!r} from {wanted}, here is {found or 'none'}: {advice}"
    )


def _build(path: Path, point: OperatingPoint, specs: tuple[FeatureSpec, ...], state: Mapping[str, Tensor]) -> Codec:
    """The codec with a checkpoint's state. Its statistics come with the state, so any stand in for them."""
    stand_in = {
        s.name: FeatureStats(
            torch.zeros(s.channels), torch.ones(s.channels), -torch.ones(s.channels), torch.ones(s.channels)
        )
        for s in specs
    }
    codec: Any = registry.get("codec", point.codec).build(specs, stand_in, point.params)
    try:
        codec.load_state_dict(state)
    except RuntimeError as error:
        raise FcbenchError(f"codec checkpoint {path} does not fit {point.label}: {_line(error)}") from None
    wrong = [name for name, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if wrong:
        names = ", ".join(wrong[:3])
        raise FcbenchError(f"codec checkpoint {path} holds values that are not finite, in {names}: train it again")
    codec.eval()
    return cast(Codec, codec)


def _digest(meta: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """sha256 over the metadata, then names, types, shapes and values in the order of names."""
    total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name]
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _line(error: Exception) -> str:
    """First line of an error's text, cut to 160 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
