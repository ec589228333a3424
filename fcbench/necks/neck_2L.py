"""The neck of the paper with 2 Transformer layers."""

from fcbench.necks.shared.transformer import TransformerPlugin

PLUGIN = TransformerPlugin(n_layers=2)
