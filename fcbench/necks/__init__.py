"""Necks: what turns features into a head's input, one module each.

Imports: core.
"""
