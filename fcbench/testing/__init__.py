"""Contract tests as a kit: three lines run them on a plug-in from outside. Needs pytest.

Imports: core, encoders, transmit.
"""
