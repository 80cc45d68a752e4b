"""Layers of the project as the files that geopsp reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsMapLayer, QgsProcessingException, QgsProviderRegistry, QgsRasterLayer, QgsVectorLayer

VECTOR_FORMATS = ["gpkg", "shp", "geojson", "json", "fgb", "parquet", "kml", "gml", "sqlite", "gdb", "tab", "dxf"]
"""What geopsp reads as it is; layers of other kinds are copied to a GeoPackage first."""

SEVERAL_LAYERS = {".gpkg", ".sqlite", ".gdb", ".kml", ".gml", ".dxf"}


def raster_source(layer: QgsRasterLayer) -> str:
    """Return the file of a raster layer, or the URL or name by which GDAL opens it.

    Raises:
        QgsProcessingException: if it does not come from GDAL, e.g. tiles of a web service.
    """
    if layer.providerType() != "gdal":
        raise QgsProcessingException(
            f"The layer '{layer.name()}' comes from the provider '{layer.providerType()}', but geopsp reads raster "
            "files. Save it as a GeoTIFF first (Export > Save As)."
        )
    parts = _parts(layer)
    return str(parts["path"]) if parts.get("path") and not parts.get("layerName") else layer.source()


def vector_source(layer: QgsVectorLayer) -> str:
    """Return FILE or FILE|layername=LAYER of a vector layer, as it is saved.

    Raises:
        QgsProcessingException: if it is no file, shows only a part of it, or has edits that are not saved.
    """
    name = layer.name()
    if layer.providerType() != "ogr":
        raise QgsProcessingException(
            f"The layer '{name}' comes from the provider '{layer.providerType()}', but must be a file. Save it as a "
            "GeoPackage first (Export > Save Features As)."
        )
    if layer.isEditable() and layer.isModified():
        raise QgsProcessingException(f"The layer '{name}' has edits that are not saved. Save them first.")
    if layer.subsetString():
        raise QgsProcessingException(f"The layer '{name}' has a filter, which geopsp cannot see. Remove it first.")
    parts = _parts(layer)
    return with_layer(str(parts["path"]), parts.get("layerName") or "")


def with_layer(path: str, layer: str) -> str:
    """Return FILE|layername=LAYER where such a file may hold several layers, else FILE."""
    return f"{path}|layername={layer}" if layer and Path(path).suffix.lower() in SEVERAL_LAYERS else path


def _parts(layer: QgsMapLayer) -> dict[str, Any]:
    parts: dict[str, Any] = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source())
    return parts
