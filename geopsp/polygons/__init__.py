"""Turn class rasters into polygons."""
