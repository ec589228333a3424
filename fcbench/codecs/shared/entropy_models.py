"""CompressAI's entropy models, and what to do where they are missing."""

from fcbench.core.errors import FcbenchError

try:
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
except ImportError as error:
    raise FcbenchError(f"CompressAI cannot be imported ({error}): pip install --no-deps compressai==1.2.8") from None

__all__ = ["EntropyBottleneck", "GaussianConditional"]
