"""Read and write vector files."""
