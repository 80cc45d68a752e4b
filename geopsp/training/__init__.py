"""Fit and score a classifier."""
