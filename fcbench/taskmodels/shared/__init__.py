"""Code that several task models share."""
