"""A QGIS plugin: algorithms of the Processing toolbox that run the installed geopsp.

It needs nothing but QGIS itself. geopsp, with its libraries, is installed elsewhere and runs as a program of its own.
"""

from __future__ import annotations

from typing import Any


def classFactory(_: Any) -> Any:  # noqa: N802 (QGIS calls it so)
    """Return the plugin; QGIS calls this, with or without a window."""
    from .plugin import GeopspPlugin

    return GeopspPlugin()
