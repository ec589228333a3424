"""What several image coders share."""
