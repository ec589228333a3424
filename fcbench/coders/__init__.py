"""Numbers and pictures to bytes and back; independent of features.

Imports: core.
"""
