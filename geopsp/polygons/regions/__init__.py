"""Connected regions of a class raster: label, fill holes, merge small regions."""
