"""The command line: parse, call, print; one verb per file.

Imports: core, transmit, results, analysis, measure, reports.
"""
