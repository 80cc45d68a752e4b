"""Saved models as files that other programs read."""
