"""Predict with a geopsp model: images to a map, and if asked its confidence, probabilities and polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from qgis.core import (
    NULL,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .algorithm import GeopspAlgorithm
from .layers import raster_source

MODEL, IMAGES, EXTENT = "MODEL", "IMAGES", "EXTENT"


class Predict(GeopspAlgorithm):
    """`geopsp predict`."""

    command = "predict"
    title = "Predict with a geopsp model"
    help_text = """
Classify images with a model that geopsp trained, as one map. Several images become one mosaic; the first is on top.

<b>Model</b>: the file model.json in the folder of a saved model, or an ONNX file of <i>geopsp export MODEL --to \
onnx</i>, for which geopsp needs no PyTorch. A folder may be typed in, too.

<b>Example</b>: Model <i>C:\\models\\land_cover\\model.json</i>, images <i>scene_test.tif</i>, minimum area 50, \
tolerance 0.5, polygons <i>land_cover.gpkg</i>.

Layers open with the names and colours of the model's classes. A cancelled run resumes when you repeat it with the \
same settings and the same output file.
""".strip()
    options: ClassVar[dict[str, str]] = {
        "AOI": "aoi", "TTA": "tta", "NO_BACKGROUND": "no-background", "MIN_AREA": "min-area", "SIMPLIFY": "simplify",
        "MIN_CONFIDENCE": "min-confidence", "CELL_SIZE": "cell-size", "BATCH_SIZE": "batch-size", "DEVICE": "device",
        "OUTPUT": "out", "CONFIDENCE": "confidence", "PROBABILITIES": "probabilities", "POLYGONS": "polygons",
    }  # fmt: skip

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:  # noqa: N802
        """Add the parameters."""
        self._add_inputs()
        self._add_settings()
        self._add_outputs()

    def _add_inputs(self) -> None:
        self.add(
            QgsProcessingParameterFile(MODEL, "Model", fileFilter="Models (model.json *.onnx);;All files (*)"),
            "model.json in the folder of a saved model, or an ONNX file.",
        )
        self.add(
            QgsProcessingParameterMultipleLayers(IMAGES, "Images", QgsProcessing.TypeRaster),
            "Layers or files with the bands of the model. The first is on top.",
        )
        self.add(
            QgsProcessingParameterExtent(EXTENT, "Extent", optional=True),
            "Only this rectangle is mapped. Default: all of the images.",
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "AOI", "Area of interest", [QgsProcessing.TypeVectorPolygon], optional=True
            ),
            "Polygons; outside of them the map has no data. Default: all of the images.",
        )

    def _add_settings(self) -> None:
        number = QgsProcessingParameterNumber
        self.add(
            number("MIN_AREA", "Minimum area of polygons (m²)", number.Double, optional=True, minValue=0),
            "Smaller regions join a neighbour.",
        )
        self.add(
            number("SIMPLIFY", "Simplification tolerance of polygons (m)", number.Double, optional=True, minValue=0),
            "Outlines get simpler, without gaps or overlaps between neighbours.",
        )
        self.add(
            QgsProcessingParameterBoolean("NO_BACKGROUND", "Never predict background", False),
            "Each pixel gets its most probable class other than background.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterBoolean("TTA", "Test-time augmentation", False),
            "Average predictions over 8 flips and rotations: usually more accurate, and 8 times slower.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterString("MIN_CONFIDENCE", "Minimum confidence", optional=True),
            "0 to 1; pixels below it become the class 'unsure'. By class: building=0.7,other=0.5.",
            advanced=True,
        )
        self.add(
            number("CELL_SIZE", "Resample to this pixel size (CRS units)", number.Double, optional=True, minValue=0),
            "Default: the pixels of the images as they are.",
            advanced=True,
        )
        self.add(
            number("BATCH_SIZE", "Tiles per batch", number.Integer, optional=True, minValue=1),
            "Default: as many as fit into memory.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterString("DEVICE", "Device", optional=True),
            "cpu, cuda or cuda:1. Default: the first GPU, else the CPU.",
            advanced=True,
        )
        self.add_extra("--crf --sieve 10 --bands 4,3,2")

    def _add_outputs(self) -> None:
        self.add(QgsProcessingParameterRasterDestination("OUTPUT", "Map"), "A GeoTIFF of class codes (COG).")
        for name, title, text in (
            ("CONFIDENCE", "Confidence", "The probability of the predicted class, 0 to 1."),
            ("PROBABILITIES", "Probabilities", "The probability of each class, one band per class."),
        ):
            self.add(QgsProcessingParameterRasterDestination(name, title, optional=True, createByDefault=False), text)
        self.add(
            QgsProcessingParameterVectorDestination(
                "POLYGONS", "Polygons", QgsProcessing.TypeVectorPolygon, optional=True, createByDefault=False
            ),
            "The regions of the map, with class names and areas.",
        )

    def more_options(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, str | bool]:
        """Return the extent, in the CRS of the first image."""
        if parameters.get(EXTENT) in (None, NULL, ""):
            return {}
        box = self.parameterAsExtent(parameters, EXTENT, context, self._images(parameters, context)[0].crs())
        sides = (box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum())
        return {"extent": ",".join(f"{side:.15g}" for side in sides)}

    def arguments(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[str, ...]:
        model = self.parameterAsString(parameters, MODEL, context)
        if Path(model).name == "model.json":
            model = str(Path(model).parent)
        return model, *map(raster_source, self._images(parameters, context))

    def _images(self, parameters: dict[str, Any], context: QgsProcessingContext) -> list[Any]:
        layers = self.parameterAsLayerList(parameters, IMAGES, context)
        if not layers:
            raise QgsProcessingException("No image is given. Choose at least one raster layer or file.")
        return list(layers)
