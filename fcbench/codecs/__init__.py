"""Codecs: feature maps to a bitstream and back, one module each.

Imports: core, coders.
"""
