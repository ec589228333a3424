"""The neck of the paper with 4 Transformer layers."""

from __future__ import annotations

from fcbench.necks.shared.transformer import TransformerPlugin

PLUGIN = TransformerPlugin(n_layers=4)
