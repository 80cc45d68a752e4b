"""Dask clusters: connect, hand out tasks, and check workers; used by chips, polygons and maps."""
