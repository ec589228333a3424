"""Features of a data set: extracted once, stored, never changed.

Imports: core.
"""
