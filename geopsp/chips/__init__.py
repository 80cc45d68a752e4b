"""Cut images and labels into a folder of training chips."""
