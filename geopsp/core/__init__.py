"""Values and small tools that every folder uses: grids, legends, bands, paths, output files, progress."""
