"""Weights of torchvision's networks: fetched, checked, loaded as in torchvision."""

import re
import urllib.error
from pathlib import Path

from torch import hub, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import WeightsInfo
from fcbench.core.state_dicts import some_of_each
from fcbench.encoders.shared.weights import (
    file_sha256,
    load_state,
    no_weights,
    other_architecture,
    random_weights,
    weights_file,
)

NO_EPSILON = ("fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Networks whose published weights need batch normalization without epsilon, as in torchvision."""
COUNTER = ".num_batches_tracked"
"""Suffix of batch normalization's step counter; weights trained with frozen normalization have none."""


def official_file(model: str, url: str) -> Path:
    """A file of torchvision's weights: from torch.hub's folder, or downloaded into it.

    `model`: as typed, for messages. `url`: its name ends in the first digits of its SHA-256, ``net-258fb6c6.pth``.
    Raises `FcbenchError`: it cannot be fetched, or it is damaged; a damaged one is removed.
    """
    path = Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    promised = re.findall(r"-([0-9a-f]{8,})\.", path.name)[-1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            hub.download_url_to_file(url, str(path), promised, progress=False)
        except urllib.error.HTTPError as exc:
            raise FcbenchError(f"{model}: {url} answers {exc.code} {exc.reason}: give --weights FILE") from exc
        except (OSError, RuntimeError) as exc:  # no network; or torch.hub's error for another hash
            if "hash" in str(exc):
                raise FcbenchError(f"{model}: {url} arrived damaged ({exc}): run the command again") from exc
            raise FcbenchError(no_weights(model, f"download {url}")) from exc
    if not (got := file_sha256(path)).startswith(promised):
        path.unlink()
        raise FcbenchError(
            f"{model}: {path} is damaged (SHA-256 {got[:12]}..., its name says {promised}) and was removed: "
            "run the command again"
        )
    return path


def load(model: str, name: str, network: nn.Module, url: str, weights: str | None) -> WeightsInfo:
    """Load the weights of a network.

    `model`: as typed, for messages. `name`: torchvision's. `url`: of the published weights. `weights`: None for these,
    ``random`` to keep the present ones, or a file's path. Raises `FcbenchError`: they are unavailable, or of another
    architecture.
    """
    file = weights_file(weights, lambda: (official_file(model, url), f"torchvision:{url.rpartition('/')[2]}"))
    if file is None:
        return random_weights(network)
    path, origin = file
    what, state = f"weights {path}", load_state(path)
    try:
        result = network.load_state_dict(state, strict=False)  # it also maps the names of older versions
    except RuntimeError as exc:
        raise other_architecture(what, model, str(exc).splitlines()[-1].strip()) from exc
    missing = [key for key in result.missing_keys if not key.endswith(COUNTER)]
    if missing or result.unexpected_keys:
        found = some_of_each({"missing": missing, "unexpected": result.unexpected_keys})
        raise other_architecture(what, model, found)
    for norm in network.modules() if name in NO_EPSILON else ():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 0.0
    return WeightsInfo(file_sha256(path), origin)
