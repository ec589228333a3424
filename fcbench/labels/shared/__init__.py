"""Code that several label coders share."""
