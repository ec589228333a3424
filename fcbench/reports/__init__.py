"""Tables and figures from analyses.

Imports: core, results, analysis.
"""
