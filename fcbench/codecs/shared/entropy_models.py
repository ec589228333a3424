"""CompressAI's entropy models, imported without the rest of the package.

``import compressai`` takes three seconds, most of them for point clouds and graphs (``torch_geometric``). The entropy
models use none of that, so they are imported before the package runs. CompressAI runs the package when the first
entropy model is built: a run with nothing left to train never pays for it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType

from fcbench.core.errors import FcbenchError


def _imported() -> ModuleType:
    """``compressai.entropy_models``. A later import of ``compressai`` runs it as usual."""
    spec = importlib.util.find_spec("compressai")
    if spec is None or "compressai" in sys.modules:
        return importlib.import_module("compressai.entropy_models")
    sys.modules["compressai"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("compressai.entropy_models")
    finally:
        del sys.modules["compressai"]


try:
    _module = _imported()
except ImportError as error:
    raise FcbenchError(f"CompressAI cannot be imported ({error}): pip install --no-deps compressai==1.2.8") from None

EntropyBottleneck, GaussianConditional = _module.EntropyBottleneck, _module.GaussianConditional
