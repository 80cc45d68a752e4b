"""Values and small tools that all folders use: grids, legends, bands, options, paths, output files, messages."""
