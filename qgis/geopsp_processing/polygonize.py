"""Polygonize classes: a class raster to polygons with names and colours."""

from __future__ import annotations

from typing import Any, ClassVar

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .algorithm import GeopspAlgorithm


class PolygonizeClasses(GeopspAlgorithm):
    """`geopsp polygonize`."""

    command = "polygonize"
    title = "Polygonize classes"
    help_text = """
Write the regions of a class raster as polygons with the name of their class, their area and their perimeter. \
Neighbours share their outlines: whatever the tolerance, there are no gaps and no overlaps.

Class names and colours come from the raster: a map of geopsp, or any raster with an attribute table or a colour table.

<b>Example</b>: minimum area 50, tolerance 0.5, leave out <i>background</i>. For buildings: keep <i>building</i>, \
right angles 1.
""".strip()
    options: ClassVar[dict[str, str]] = {
        "MIN_AREA": "min-area", "SIMPLIFY": "simplify", "SMOOTH": "smooth", "FILL_HOLES": "fill-holes", "KEEP": "keep",
        "DROP": "drop", "REGULARIZE": "regularize", "DISSOLVE": "dissolve", "CONFIDENCE": "confidence",
        "OUTPUT": "out",
    }  # fmt: skip

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:  # noqa: N802
        """Add the parameters."""
        number = QgsProcessingParameterNumber
        self.add(QgsProcessingParameterRasterLayer("RASTER", "Class raster"), "One band of class codes.")
        for name, title, text in (
            ("MIN_AREA", "Minimum area (m²)", "Smaller regions join a neighbour."),
            ("SIMPLIFY", "Simplification tolerance (m)", "Outlines get simpler, without gaps or overlaps."),
            ("FILL_HOLES", "Fill holes smaller than (m²)", "Smaller holes in regions are filled."),
        ):
            self.add(number(name, title, number.Double, optional=True, minValue=0), text)
        self.add(
            number("SMOOTH", "Smoothing iterations", number.Integer, optional=True, minValue=0),
            "Outlines get rounder; 2 or 3 are enough.",
        )
        self.add(
            QgsProcessingParameterString("KEEP", "Classes to keep", optional=True), "E.g. building,road. Default: all."
        )
        self.add(QgsProcessingParameterString("DROP", "Classes to leave out", optional=True), "E.g. background.")
        self.add(
            QgsProcessingParameterBoolean("DISSOLVE", "One feature per class", False),
            "A multipolygon for each class.",
            advanced=True,
        )
        self.add(
            number("REGULARIZE", "Right angles: move corners by at most (m)", number.Double, optional=True, minValue=0),
            "Right-angled outlines of the classes that are kept, e.g. buildings.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterRasterLayer("CONFIDENCE", "Confidence", optional=True),
            "A raster of the same grid; adds its mean for each polygon.",
            advanced=True,
        )
        self.add_extra("--connectivity 8 --nodata none")
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", "Polygons", QgsProcessing.TypeVectorPolygon),
            "GeoPackage, FlatGeobuf, GeoParquet, GeoJSON or shapefile.",
        )

    def arguments(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[str, ...]:
        return (self.raster(parameters, "RASTER", context),)
