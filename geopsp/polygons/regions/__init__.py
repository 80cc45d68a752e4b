"""Connected regions of a class raster: labelled, filled, merged."""
