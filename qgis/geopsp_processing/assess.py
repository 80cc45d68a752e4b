"""Assess a map: its accuracy, and the areas of its classes, from points or polygons with the true class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorLayer,
)

from .algorithm import GeopspAlgorithm


class AssessMap(GeopspAlgorithm):
    """`geopsp assess`."""

    command = "assess"
    title = "Assess a map"
    help_text = """
Estimate the accuracy of a map and the areas of its classes, with confidence intervals, from a labelled sample (see \
<i>Draw a sample</i>). Points without a label do not count.

You can also use other points or polygons: choose the field with the true class. The accuracy then holds for these \
places only, unless the points are a simple random sample.

<b>Example</b>: map <i>land_cover.tif</i>, reference <i>points.gpkg</i>. The report has all tables; the \
log shows them as text.
""".strip()
    options: ClassVar[dict[str, str]] = {
        "FIELD": "reference-field", "CONFIDENCE_LEVEL": "confidence-level", "HTML": "html", "JSON": "json",
        "CSV": "csv",
    }  # fmt: skip

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:  # noqa: N802
        """Add the parameters."""
        number = QgsProcessingParameterNumber
        self.add(QgsProcessingParameterRasterLayer("MAP", "Map"), "A class raster.")
        self.add(
            QgsProcessingParameterVectorLayer("REFERENCE", "Reference", [QgsProcessing.TypeVectorAnyGeometry]),
            "A labelled sample, or points or polygons with the true class. Save your edits first.",
        )
        self.add(
            QgsProcessingParameterField(
                "FIELD", "Field with the true class", parentLayerParameterName="REFERENCE", optional=True
            ),
            "Default: the field of a sample; other layers need it.",
        )
        self.add(
            QgsProcessingParameterBoolean("SIMPLE_RANDOM", "The points are a simple random sample", False),
            "Each pixel of the map had the same chance to be drawn. For points that are not from Draw a sample.",
            advanced=True,
        )
        self.add(
            number("CONFIDENCE_LEVEL", "Confidence level", number.Double, 0.95, minValue=0.5, maxValue=0.999),
            "Of the intervals.",
            advanced=True,
        )
        self.add_extra("--merge-strata --background class")
        for name, title, file_filter, is_made in (
            ("HTML", "Report", "HTML files (*.html)", True),
            ("JSON", "Results as JSON", "JSON files (*.json)", False),
            ("CSV", "Results as a table", "CSV files (*.csv)", False),
        ):
            self.add(
                QgsProcessingParameterFileDestination(name, title, file_filter, optional=True, createByDefault=is_made),
                "A file to write.",
            )
        self.addOutput(QgsProcessingOutputNumber("OVERALL_ACCURACY", "Overall accuracy"))

    def more_options(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, str | bool]:
        return {"design": "simple" if self.parameterAsBool(parameters, "SIMPLE_RANDOM", context) else ""}

    def arguments(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[str, ...]:
        return self.raster(parameters, "MAP", context), self.vector(parameters, "REFERENCE", context)

    def processAlgorithm(  # noqa: N802
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the command; the overall accuracy is a number for models of Processing."""
        results = super().processAlgorithm(parameters, context, feedback)
        if "JSON" in results:
            try:
                found = json.loads(Path(results["JSON"]).read_text(encoding="utf-8"))
                results["OVERALL_ACCURACY"] = found["overall_accuracy"]["estimate"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise QgsProcessingException(f"Cannot read {results['JSON']}: {error}") from error
        return results
