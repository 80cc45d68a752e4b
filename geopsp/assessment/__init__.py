"""What a map is worth: samples, accuracy, change, comparison of models."""
