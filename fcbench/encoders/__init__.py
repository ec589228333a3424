"""Frozen encoders and their split points, one module each.

Imports: core.
"""
