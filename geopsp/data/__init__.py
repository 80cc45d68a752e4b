"""Chips as batches: splits, datasets, augmentation, loaders."""
