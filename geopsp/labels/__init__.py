"""Labels (polygons or a raster) as class codes on any grid."""
