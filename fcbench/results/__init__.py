"""A results folder: rows, samples, provenance, the interval of a row.

Imports: core.
"""
