"""Tasks: a head, its loss and its metric, one module each.

Imports: core.
"""
