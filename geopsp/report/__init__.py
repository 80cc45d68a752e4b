"""Reports on chips, rasters, models and scores: text, JSON, HTML and figures."""
