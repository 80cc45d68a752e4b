"""Draw a sample: pixels of a map as points to label, with a form that offers the classes."""

from __future__ import annotations

from typing import Any, ClassVar

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
    QgsProcessingUtils,
)

from .algorithm import GeopspAlgorithm

DESIGNS = ["stratified", "simple", "cluster"]


class DrawSample(GeopspAlgorithm):
    """`geopsp sample`."""

    command = "sample"
    title = "Draw a sample"
    help_text = """
Draw random pixels of a map, as points for you to label. From your labels, <i>Assess a map</i> estimates the accuracy \
of the map and the areas of its classes, with confidence intervals.

The points open with a form. Choose the class that you see in an image; the class of the map is hidden, so that it \
does not influence you. Red points are not labelled yet. Their order is random, so you can stop early.

<b>Example</b>: map <i>land_cover.tif</i>, 300 points, sample <i>points.gpkg</i>. Without a number, as many points are \
drawn as the standard error needs.
""".strip()
    options: ClassVar[dict[str, str]] = {
        "DESIGN": "design", "SIZE": "size", "STANDARD_ERROR": "standard-error", "CONFIDENCE": "confidence",
        "ZONES": "zones", "ZONE_FIELD": "zone-field", "AOI": "aoi", "SHOW_MAP_CLASS": "show-map-class", "SEED": "seed",
        "OUTPUT": "out",
    }  # fmt: skip

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:  # noqa: N802
        """Add the parameters."""
        number = QgsProcessingParameterNumber
        self.add(QgsProcessingParameterRasterLayer("MAP", "Map"), "A class raster.")
        self.add(
            QgsProcessingParameterEnum("DESIGN", "Design", DESIGNS, defaultValue=DESIGNS[0], usesStaticStrings=True),
            "stratified: at random within each class of the map; simple: at random from all of it; cluster: all pixels "
            "of small squares.",
        )
        self.add(
            number("SIZE", "Number of points", number.Integer, optional=True, minValue=1),
            "Of a cluster sample, the number of squares. Default: as many as the standard error needs.",
        )
        self.add(
            number("STANDARD_ERROR", "Standard error", number.Double, optional=True, minValue=0, maxValue=1),
            "Of the overall accuracy, if no number of points is given. Default: 0.01, i.e. about ± 2 %.",
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "AOI", "Area of interest", [QgsProcessing.TypeVectorPolygon], optional=True
            ),
            "Polygons; the sample is drawn from them, and stands for them alone.",
        )
        self.add(
            QgsProcessingParameterBoolean("SHOW_MAP_CLASS", "Show the class of the map in the form", False),
            "By default it is hidden, so that your label does not depend on it.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterRasterLayer("CONFIDENCE", "Confidence", optional=True),
            "A raster of the same grid, for a field with the confidence of each point.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSource("ZONES", "Zones", [QgsProcessing.TypeVectorPolygon], optional=True),
            "Polygons that divide the map; accuracy and areas are given for each, too.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterField(
                "ZONE_FIELD", "Name of the zone", parentLayerParameterName="ZONES", optional=True
            ),
            "Default: each polygon is a zone.",
            advanced=True,
        )
        self.add(
            number("SEED", "Random seed", number.Integer, 0, minValue=0), "The same one gives the same points.",
            advanced=True,
        )  # fmt: skip
        self.add_extra("--allocation equal --exclude-class cloud")
        self.add(
            QgsProcessingParameterVectorDestination("OUTPUT", "Sample", QgsProcessing.TypeVectorPoint),
            "A GeoPackage (.gpkg). Keep it: your labels are saved in it.",
        )

    def processAlgorithm(  # noqa: N802
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Draw the sample; warn if labels would be lost with a temporary file."""
        results = super().processAlgorithm(parameters, context, feedback)
        if results.get("OUTPUT", "").startswith(QgsProcessingUtils.tempFolder()):
            feedback.pushWarning("The sample is a temporary file. Save it under a name of its own before you label.")
        return results

    def arguments(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[str, ...]:
        return (self.raster(parameters, "MAP", context),)
