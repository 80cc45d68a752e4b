"""Read rasters of any kind as one `Scene`; write GeoTIFFs."""
