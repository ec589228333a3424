"""From a suite to rows.

Imports: core, coders, features, transmit, training, results.
"""
