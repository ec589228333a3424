"""The neck of the paper with 4 Transformer layers."""

from fcbench.necks.shared.transformer import TransformerPlugin

PLUGIN = TransformerPlugin(n_layers=4)
