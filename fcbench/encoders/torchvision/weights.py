"""Weights of torchvision's networks: fetched, checked, loaded as in torchvision."""

import re

from torch import nn

from fcbench.core.features import WeightsInfo
from fcbench.core.state_dicts import some_of_each
from fcbench.encoders.shared.weights import (
    file_sha256,
    load_state,
    other_architecture,
    published_file,
    random_weights,
    weights_file,
)

NO_EPSILON = ("fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Networks whose published weights need batch normalization without epsilon, as in torchvision."""
COUNTER = ".num_batches_tracked"
"""Suffix of batch normalization's step counter; weights trained with frozen normalization have none."""


def load(model: str, name: str, network: nn.Module, url: str, weights: str | None) -> WeightsInfo:
    """Load the weights of a network.

    `model`: as typed, for messages. `name`: torchvision's. `url`: of the published weights; its name ends in the
    first digits of their SHA-256, ``net-258fb6c6.pth``. `weights`: None for these,
    ``random`` to keep the present ones, or a file's path. Raises `FcbenchError`: they cannot be had, or are of another
    architecture.
    """
    file_name = url.rpartition("/")[2]
    promised = re.findall(r"-([0-9a-f]{8,})\.", file_name)[-1]
    file = weights_file(weights, lambda: (published_file(model, url, promised), f"torchvision:{file_name}"))
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
