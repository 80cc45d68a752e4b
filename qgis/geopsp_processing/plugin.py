"""The plugin: it adds the provider to Processing, and takes it away again."""

from __future__ import annotations

from qgis.core import QgsApplication

from .provider import GeopspProvider


class GeopspPlugin:
    """What QGIS starts and stops; the names of its methods are QGIS's."""

    def __init__(self) -> None:
        self.provider: GeopspProvider | None = None

    def initGui(self) -> None:  # noqa: N802
        self.initProcessing()

    def initProcessing(self) -> None:  # noqa: N802
        self.provider = GeopspProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def unload(self) -> None:
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
