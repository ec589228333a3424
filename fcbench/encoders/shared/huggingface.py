"""Models of the package ``transformers``: imported, configured, their weights found and loaded."""

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import WeightsInfo
from fcbench.core.state_dicts import some_of_each
from fcbench.encoders.shared.weights import (
    file_sha256,
    hub_file,
    load_state,
    other_architecture,
    random_weights,
    seeded,
)

FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"


def library() -> Any:
    """The package ``transformers``. Raises `FcbenchError`: it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as exc:
        raise FcbenchError(
            f"encoders hf:NAME and official task models need the package transformers ({exc}): "
            "pip install fcbench[transformers]"
        ) from exc


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and reports of transformers; its settings are restored afterwards."""
    logging = library().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def find(
    name: str,
    weights: str | None,
    repo: str,
    also: Sequence[tuple[str, ...]] = (),
    files: Sequence[str] = FILES,
) -> tuple[Path, str]:
    """The weights file, whose folder also holds its configuration, and the origin to record.

    A configuration is never guessed: the number of heads, for example, cannot be told from the shapes of the weights.
    `name`: the model as typed. `weights`: None for the hub or its cache; a file; a folder as `save_pretrained` writes
    it. `repo`: on the hub. `also`: further files to fetch from the hub, each with its other names. `files`: acceptable
    names of the weights file. Raises `FcbenchError`: they are missing and cannot be fetched.
    """
    if weights is None:
        path = hub_file(name, repo, files)
        for names in ((CONFIG,), *also):
            hub_file(name, repo, names)
        return path, f"hub:{repo}"
    path = Path(weights)
    origin = path.name
    if path.is_dir():
        found = [f for f in files if (path / f).is_file()]
        if not found:
            raise FcbenchError(
                f"weights folder {path} holds none of {', '.join(files)}: give one that save_pretrained wrote"
            )
        path, origin = path / found[0], f"{path.name}/{found[0]}"
    if path.is_file() and not (path.parent / CONFIG).is_file():
        raise FcbenchError(
            f"{name}: no {CONFIG} beside the weights {path}: give the model's whole folder, as published"
        )
    return path, f"file:{origin}"


def random_model(model_class: Any, config: Any, **how: Any) -> tuple[nn.Module, WeightsInfo]:
    """A model of a configuration with random weights. `how`: further arguments of its class."""
    with seeded(), quiet():
        model = model_class(config, **how)
    return model, random_weights(model)


def load(
    name: str, model_class: Any, path: Path, origin: str, config: Any = None, **how: Any
) -> tuple[nn.Module, WeightsInfo]:
    """A model with the weights of a file, through the official loader (which renames tensors of older versions).

    Tensors that the model does not have are ignored, as in the official loader; all that it has must be in the file.
    `name`: the model as typed. `model_class`: of transformers. `path`: the weights. `origin`: to record. `config`: None
    for the one beside the weights. `how`: further arguments of the class. Raises `FcbenchError`: damaged, or of another
    architecture.
    """
    config = config or read_config(path.parent / CONFIG, model_class.config_class)
    state = load_state(path)
    with quiet():
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in one line
            **how,
        )
    reshaped = sorted(str(m[0]) for m in info["mismatched_keys"])
    if different := some_of_each({"missing": sorted(info["missing_keys"]), "of another shape": reshaped}):
        raise other_architecture(f"weights {path}", name, different)
    return model, WeightsInfo(file_sha256(path), origin)


def read_config(path: Path, config_class: Any) -> Any:
    """Read a configuration of a class of transformers. Raises `FcbenchError`: it is damaged, or of another model."""
    expected, values = config_class.model_type, read_values(path)
    if (kind := values.get("model_type")) != expected:
        raise FcbenchError(f"configuration {path} is of a {kind!r} model, expected {expected!r}")
    try:
        return config_class.from_dict(values)
    except Exception as exc:  # its checks may raise anything
        raise _unreadable(path, exc) from exc


def read_values(path: Path) -> dict[str, Any]:
    """The values of a file such as ``config.json``. Raises `FcbenchError`: it is missing or damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: Exception) -> FcbenchError:
    reason = (str(exc).splitlines() or [type(exc).__name__])[0]
    return FcbenchError(f"configuration {path} cannot be read ({reason})")
