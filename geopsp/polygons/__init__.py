"""Class rasters as polygons, of any size: traced in cells, joined over their seams, cleaned, simplified, measured."""
