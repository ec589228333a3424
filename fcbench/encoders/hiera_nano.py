"""``hiera_nano``: the embedded general encoder, masked-autoencoder pretraining, then image-level attributes."""

from fcbench.encoders._nano import NanoPlugin

PLUGIN = NanoPlugin(
    "hiera_nano",
    "embedded, 2.0 M parameters, general: masked autoencoder, then image-level attributes of scenes",
)
