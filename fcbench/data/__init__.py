"""Data sets, one module each.

Imports: core.
"""
