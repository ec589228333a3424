"""Readouts and codecs, trained once into the cache.

Imports: core, features, transmit.
"""
