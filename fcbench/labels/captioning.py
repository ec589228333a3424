"""A caption, losslessly: the best of several general compressors, among them deflate with a dictionary of captions."""

from typing import Any

from fcbench.core.errors import FcbenchError
from fcbench.labels.shared.coder import LabelCoder, expand, squeeze

_DICTIONARY = (
    "the picture of several three four five people children women men boy girl child woman person holding wearing "
    "looking playing eating riding walking flying driving parked filled covered surrounded next to near behind under "
    "above between along over around through inside outside across background foreground table plate food pizza cake "
    "kitchen bathroom bedroom living room window mirror chair couch bed laptop computer phone book train bus truck car "
    "motorcycle bike street road city building sign light clock tower sky beach ocean water wave river lake grass "
    "field park tree mountain snow ski slope horse cow sheep elephant giraffe zebra bear bird cat dog small large big "
    "young old black white red green blue yellow brown gray orange wooden baseball tennis soccer skateboard surfboard "
    "frisbee kite umbrella ball bat game player with his her their it are has is that and for from by at as of a two "
    "A group of people standing in a man is sitting on top of a woman with a in front of a on the side of the "
).encode()


def encode(output: tuple[str, ...]) -> bytes:
    """Code the caption, in a tuple of one."""
    return squeeze(output[0].encode(), _DICTIONARY)


def decode(data: bytes) -> tuple[str, ...]:
    """The caption, in a tuple of one."""
    try:
        return (expand(data, _DICTIONARY).decode(),)
    except UnicodeDecodeError:
        raise FcbenchError("a caption is damaged: it is not UTF-8") from None


def _output(prediction: Any) -> tuple[str, ...]:
    caption = prediction[0]
    return (caption if isinstance(caption, str) else " ".join(caption),)


PLUGIN = LabelCoder(_output, encode, decode, tuple.__eq__)
