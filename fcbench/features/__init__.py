"""Features of a data set: extracted once, kept, never changed.

Imports: core.
"""
