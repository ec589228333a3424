"""What several label coders share."""
