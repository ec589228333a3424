"""``hiera_nano``: embedded, general, 2.0 M parameters: masked autoencoder, then image-level attributes."""

from fcbench.encoders.shared.nano import NanoPlugin

PLUGIN = NanoPlugin("hiera_nano")
