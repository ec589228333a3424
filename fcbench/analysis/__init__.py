"""Numbers from rows; trains and codes nothing.

Imports: core, results.
"""
