"""Write large Cloud Optimized GeoTIFFs, part by part."""
