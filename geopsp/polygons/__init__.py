"""Class rasters as polygons."""
