"""The HTML report of a model: one page, made of what its folder holds."""
