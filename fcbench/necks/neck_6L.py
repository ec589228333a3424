"""The neck of the paper with 6 Transformer layers."""

from __future__ import annotations

from fcbench.necks.shared.transformer import TransformerPlugin

PLUGIN = TransformerPlugin(n_layers=6)
