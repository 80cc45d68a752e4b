"""Chips as batches: split, datasets, augmentation, loaders."""
