"""Models of the package ``transformers``: imported, configured, their weights found and loaded."""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import WeightsInfo
from fcbench.core.state_dicts import some_of_each
from fcbench.core.tasks import Task, TaskModel, TaskModelPlugin
from fcbench.encoders.shared.padded import variant_of
from fcbench.encoders.shared.weights import (
    file_sha256,
    hub_file,
    load_state,
    other_architecture,
    random_weights,
    seeded,
)
from fcbench.taskmodels.shared.official import require_task

FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"


def library() -> Any:
    """The package ``transformers``. Raises `FcbenchError`: it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as exc:
        raise FcbenchError(
            f"official task models need the package transformers ({exc}): pip install fcbench[heads]"
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


def find(name: str, weights: str | None, repo: str, also: Sequence[tuple[str, ...]] = ()) -> tuple[Path, str]:
    """The weights file, whose folder also holds its configuration, and the origin to record.

    A configuration is never guessed: the number of heads, for example, cannot be told from the shapes of the weights.
    `name`: the task model as typed. `weights`: None for the hub or its cache; a file; a folder as `save_pretrained`
    writes it. `repo`: on the hub. `also`: further files to fetch from the hub, each with its other names. Raises
    `FcbenchError`: they are missing and cannot be fetched.
    """
    if weights is None:
        path = hub_file(name, repo, FILES)
        for names in ((CONFIG,), *also):
            hub_file(name, repo, names)
        return path, f"hub:{repo}"
    path = Path(weights)
    origin = path.name
    if path.is_dir():
        found = [f for f in FILES if (path / f).is_file()]
        if not found:
            raise FcbenchError(
                f"weights folder {path} holds none of {', '.join(FILES)}: give one that save_pretrained wrote"
            )
        path, origin = path / found[0], f"{path.name}/{found[0]}"
    if path.is_file() and not (path.parent / CONFIG).is_file():
        raise FcbenchError(
            f"{name}: no {CONFIG} beside the weights {path}: give the model's whole folder, as published"
        )
    return path, f"file:{origin}"


def random_model(model_class: Any, config: Any) -> tuple[nn.Module, WeightsInfo]:
    """A model of a configuration with random weights."""
    with seeded(), quiet():
        model = model_class(config)
    return model, random_weights(model)


def load(name: str, model_class: Any, path: Path, origin: str) -> tuple[nn.Module, WeightsInfo]:
    """A model with the weights of a file, through the official loader (which renames tensors of older versions).

    Tensors that the model does not have are ignored, as in the official loader; all that it has must be in the file.
    `name`: the task model as typed. `model_class`: of transformers. `path`: the weights, with their configuration
    beside them. `origin`: to record. Raises `FcbenchError`: damaged, or of another architecture.
    """
    state = load_state(path)
    config = read_config(path.parent / CONFIG, model_class.config_class)
    with quiet():
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in one line
        )
    reshaped = sorted(str(m[0]) for m in info["mismatched_keys"])
    if different := some_of_each({"missing": sorted(info["missing_keys"]), "of another shape": reshaped}):
        raise other_architecture(f"weights {path}", name, different)
    return model, WeightsInfo(file_sha256(path), origin)


def read_config(path: Path, config_class: Any) -> Any:
    """Read a configuration of a class of transformers. Raises `FcbenchError`: it is damaged, or of another model."""
    expected = config_class.model_type
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (kind := values.get("model_type")) == expected:
            return config_class.from_dict(values)
    except Exception as exc:  # its checks may raise anything
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise FcbenchError(f"configuration {path} cannot be read ({reason})") from exc
    raise FcbenchError(f"configuration {path} is of a {kind!r} model, expected {expected!r}")


@dataclass(frozen=True)
class TransformersPlugin(TaskModelPlugin):
    """A task model of the package transformers."""

    name: str  # the plug-in's
    task: str  # the task it was trained for
    repos: Mapping[str, str]  # repository on the hub by variant, the default first
    config: Callable[[str], Any]  # the package's configuration of a variant
    model_class: str  # of the package
    make: Callable[..., TaskModel]  # of (name as typed, model, origin of its weights, task, (H, W), device)

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        """Build ``NAME:VARIANT`` for images of (H, W). `variant`: see the module; empty for the first. `weights`: None
        for the hub or its cache; ``random``; a folder that `save_pretrained` wrote, or the weights file in it."""
        chosen = variant_of(self.name, variant, self.repos)
        name = f"{self.name}:{chosen}"
        require_task(name, task, self.task)
        return self.from_config(name, self.config(chosen), weights, task, image_px, device, self.repos[chosen])

    def from_config(
        self,
        name: str,
        config: Any,
        weights: str | None,
        task: Task,
        image_px: tuple[int, int],
        device: torch.device,
        repo: str = "",
    ) -> TaskModel:
        """The task model of any configuration of the official class; see `build`."""
        model_class = getattr(library(), self.model_class)
        if weights == "random":
            found = random_model(model_class, config)
        else:
            found = load(name, model_class, *find(name, weights, repo))
        return self.make(name, *found, task, image_px, device)
