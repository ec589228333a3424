"""Necks: the layers between features and a head, one module each.

Imports: core.
"""
