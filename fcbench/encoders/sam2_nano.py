"""``sam2_nano``: the embedded special encoder, the same masked autoencoder, then promptable segmentation."""

from fcbench.encoders._nano import NanoPlugin

PLUGIN = NanoPlugin(
    "sam2_nano",
    "embedded, 2.0 M parameters, special: masked autoencoder, then promptable masks of scenes",
)
