"""Contract tests as a kit: three lines run them over a plug-in from outside. Needs pytest.

Imports: core, encoders, transmit.
"""
