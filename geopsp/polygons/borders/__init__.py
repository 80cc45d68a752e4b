"""Borders of regions: traced, stitched, simplified, smoothed."""
