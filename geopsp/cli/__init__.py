"""The shell: `geopsp chips`, `train`, `evaluate`, `predict`, `polygonize`, `info`, `demo`."""

from geopsp.cli.commands import main as main
