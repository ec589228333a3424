"""Numbers and pictures to bytes and back; knows nothing of features.

Imports: core.
"""
