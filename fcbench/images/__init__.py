"""Image coders, for remote inference, one module each.

Imports: core, coders.
"""
