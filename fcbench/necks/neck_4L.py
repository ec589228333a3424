"""The neck of the paper with 4 Transformer layers."""

from __future__ import annotations

from fcbench.necks._transformer import TransformerPlugin

PLUGIN = TransformerPlugin(
    summary="linear embedding, learnable positions, 4 Transformer layers", n_layers=4
)
