"""Borders of regions: trace, stitch, simplify, smooth, regularize."""
