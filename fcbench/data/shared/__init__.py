"""Code that several data sets share."""
