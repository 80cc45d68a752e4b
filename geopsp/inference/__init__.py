"""Class maps of images of any size."""
