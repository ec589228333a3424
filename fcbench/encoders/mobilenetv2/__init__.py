"""``mobilenetv2:NAME``: one architecture, three published specializations. MobileNetV2 (width 1.0) through timm.

* ``imagenet`` (the default): classification of ImageNet;
* ``voc_segmentation``: trunk of DeepLabV3, semantic segmentation of PASCAL VOC;
* ``inat_birds``: classification of iNaturalist's birds.

They were trained apart, on different images, with 8-bit weights: no pair of them differs in the objective alone.

Split points: ``stage1`` to ``stage4``, strides 4, 8, 16, 32 with 24, 32, 96, 320 channels; together: ``trunk``. The
default is ``stage3``, the same map in all three. The last stage of ``voc_segmentation`` has stride 16 and dilation 2,
as it was published: at stride 32 its kernels would see twice the distances that they were trained on.

TensorFlow pads at the end where PyTorch pads on both sides: the networks are built with ``pad_type="same"``. Images
are scaled to RGB / 127.5 - 1. Weights are the ``.tflite`` files of github.com/google-coral/test_data, fetched into
torch.hub's folder (TORCH_HOME), checked against their SHA-256 and turned into float32 by ai-edge-litert (``pip install
fcbench[tflite]``). ``python -m benchmarks.convert_tflite`` makes a ``.safetensors`` file of one for --weights, which
needs no such package. Activations have 32 bits here; the published networks round them to 8.

Tails: classification of ``imagenet``, segmentation of ``voc_segmentation``, both with the weights of a ``.tflite``
(converted files hold no head). A classifier's output that stands for none of the classes is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fcbench.core.features import EncoderPlugin, WeightsInfo
from fcbench.encoders.mobilenetv2.deeplab import DeepLab, DeepLabTail
from fcbench.encoders.mobilenetv2.tflite import state_of
from fcbench.encoders.shared.padded import PaddedEncoder, normalized, variant_of
from fcbench.encoders.shared.timm_tail import classifier_tail, noise, require_equal
from fcbench.encoders.shared.timm_weights import info_of, specs_of
from fcbench.encoders.shared.weights import freeze, load_state, load_weights, published_file, seeded, weights_file

ARCHITECTURE = "mobilenetv2_100"
COMMIT = "104342d2d3480b3e66203073dac24f4e2dbb4c41"
REPOSITORY = "google-coral/test_data"
URL = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"
BLOCKS = (1, 2, 4, 6)  # Of timm's network, the last of each stage


@dataclass(frozen=True, slots=True)
class Published:
    """Weights that others trained and published."""

    file: str
    sha256: str
    output_stride: int = 32  # [px] that the trunk was trained with
    n_classes: int = 0  # of the classifier behind the trunk; none: another head

    def trunk(self) -> nn.Module:
        """The network up to stage 4, with random weights."""
        options: dict[str, Any] = {"pad_type": "same", "output_stride": self.output_stride}
        return timm.create_model(ARCHITECTURE, features_only=True, out_indices=(1, 2, 3, 4), **options)

    def whole(self, trunk: nn.Module) -> nn.Module:
        """The network of a trunk; what is not of the trunk has random weights."""
        if not self.n_classes:
            return DeepLab(trunk)
        whole = timm.create_model(ARCHITECTURE, num_classes=self.n_classes, pad_type="same")
        whole.load_state_dict(whole.state_dict() | trunk.state_dict())
        return whole


PUBLISHED = {
    "imagenet": Published(
        "mobilenet_v2_1.0_224_quant.tflite",
        "7aad0c74c5e3c06e5eb3c827e13304fdd68a83da6087d92ee169c24ff9fd4776",
        n_classes=1000,
    ),
    "voc_segmentation": Published(
        "deeplabv3_mnv2_pascal_quant.tflite",
        "350af47fd346ea6d74b58833a351f583ba860e9806ec5bd292ff8d8f1f249398",
        output_stride=16,
    ),
    "inat_birds": Published(
        "mobilenet_v2_1.0_224_inat_bird_quant.tflite",
        "350fcd8cf1df1560060d464595dfed8b174b05792788052896004848d9ad04f9",
        n_classes=965,
    ),
}


class MobileNetV2Encoder(PaddedEncoder):
    """A frozen trunk. `whole`: the classifier that it is the front of, for its tails; None if that is not known."""

    groups = {"trunk": ("stage1", "stage2", "stage3", "stage4")}
    multiple_px = 1
    normalization = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(
        self, name: str, module: nn.Module, weights: WeightsInfo, device: torch.device, whole: nn.Module | None
    ) -> None:
        super().__init__(name, module, specs_of(info_of(module).get_dicts()), weights, device)
        self.module.to(memory_format=torch.channels_last)  # 1.5 times faster on CPUs
        self._whole = None if whole is None else freeze(whole).to(device)
        task = "segmentation" if isinstance(whole, DeepLab) else "classification"
        self.tails = {} if whole is None else {task: tuple(self.specs)}

    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        module: Any = self.module
        x = module.bn1(module.conv_stem(x.contiguous(memory_format=torch.channels_last)))
        ends = dict(zip(BLOCKS, self.specs))
        found: dict[str, Tensor] = {}
        for i, block in enumerate(module.blocks):
            if set(split_points) <= set(found):
                break
            x = block(x)
            if i in ends:
                found[ends[i]] = x
        return found

    def tail(self, task: str, split_point: str, image_px: tuple[int, int]) -> nn.Module:
        """The rest of the network after a stage, compared with the whole one on an image of noise."""
        assert self._whole is not None
        if not isinstance(self._whole, DeepLab):
            return classifier_tail(self, self._whole, split_point, image_px)
        block = BLOCKS[list(self.specs).index(split_point)]
        tail = DeepLabTail(self._whole, split_point, block, image_px)
        freeze(tail)
        x = noise(image_px).to(self.device)
        with torch.inference_mode():
            logits = self._whole(normalized(x, self.normalization, self.levels))
            require_equal(self.name, split_point, logits, tail.network(self(x, [split_point]).maps[split_point]))
        return tail


def load(network: nn.Module, name: str, file: tuple[Path, str] | None) -> WeightsInfo:
    """Give a network its weights. `file`: of `weights_file`; what else it holds is left out."""
    state = None
    if file and file[0].suffix == ".tflite":
        state = state_of(file[0], network, name)
    elif file:
        own = network.state_dict()
        state = {n: t for n, t in load_state(file[0]).items() if n in own}
    return load_weights(network, name, file, state)


@dataclass(frozen=True)
class Plugin(EncoderPlugin):
    """MobileNetV2, specialized in three ways."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> MobileNetV2Encoder:
        name = f"mobilenetv2:{variant}" if variant else "mobilenetv2"
        chosen = variant_of("mobilenetv2", variant, PUBLISHED)
        published, whole = PUBLISHED[chosen], None
        file = weights_file(weights, lambda: _official(name, published))
        with seeded():
            trunk = published.trunk()
            info = load(trunk, name, file)
            if chosen != "inat_birds" and (file is None or file[0].suffix == ".tflite"):
                whole = published.whole(trunk)
                if file:
                    load(whole, name, file)
        return MobileNetV2Encoder(name, trunk, info, device, whole)


def _official(name: str, published: Published) -> tuple[Path, str]:
    path = published_file(name, f"{URL}/{published.file}", published.sha256)
    return path, f"github:{REPOSITORY}@{COMMIT[:7]}/{published.file}"


PLUGIN = Plugin()
