"""Samples of the pixels of a map, for reference labels."""
