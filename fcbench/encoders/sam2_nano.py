"""``sam2_nano``: embedded, special, 2.0 M parameters: the same masked autoencoder, then promptable masks."""

from fcbench.encoders.shared.nano import NanoPlugin

PLUGIN = NanoPlugin("sam2_nano")
