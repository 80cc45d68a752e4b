"""The provider "geopsp" of the Processing toolbox, and its setting: where geopsp is installed."""

from __future__ import annotations

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithm import ICON, PROGRAM_SETTING
from .assess import AssessMap
from .polygonize import PolygonizeClasses
from .predict import Predict
from .sample import DrawSample

NAME = "geopsp"


class GeopspProvider(QgsProcessingProvider):
    """All algorithms; the names of its methods are QGIS's."""

    def load(self) -> bool:
        ProcessingConfig.settingIcons[NAME] = self.icon()
        description = "geopsp program, or the folder of the Python environment that it is installed in (empty: on PATH)"
        ProcessingConfig.addSetting(Setting(NAME, PROGRAM_SETTING, description, "", valuetype=Setting.FILE))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        ProcessingConfig.removeSetting(PROGRAM_SETTING)

    def loadAlgorithms(self) -> None:  # noqa: N802
        for algorithm in (Predict, PolygonizeClasses, DrawSample, AssessMap):
            self.addAlgorithm(algorithm())

    def id(self) -> str:
        return "geopsp"

    def name(self) -> str:
        return NAME

    def longName(self) -> str:  # noqa: N802
        return "geopsp: imagery to maps"

    def icon(self) -> QIcon:
        return QIcon(ICON)

    def svgIconPath(self) -> str:  # noqa: N802
        return ICON

    def supportedOutputRasterLayerExtensions(self) -> list[str]:  # noqa: N802
        return ["tif"]

    def supportedOutputVectorLayerExtensions(self) -> list[str]:  # noqa: N802
        return ["gpkg", "fgb", "parquet", "geojson", "shp"]

    def supportsNonFileBasedOutput(self) -> bool:  # noqa: N802
        return False
