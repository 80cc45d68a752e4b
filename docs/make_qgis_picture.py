"""Draw qgis.png with QGIS itself: a map in its QML style and its polygons over the image.

Run by the Python that QGIS belongs to (Debian: `apt-get install python3-qgis`), after `geopsp demo`:

    python3 docs/make_qgis_picture.py demo
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsMapLayer,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QRect, QSize, Qt
from qgis.PyQt.QtGui import QColor, QFont, QImage, QPainter

REPOSITORY = Path(__file__).parents[1]
PICTURE = REPOSITORY / "docs" / "qgis.png"
IMAGE = REPOSITORY / "sample_data" / "scene_west.tif"
SIDE, GAP, TITLE = 460, 8, 30
SHOWN = 0.42
"""Part of the scene's height that is shown."""


def opened(layer: QgsMapLayer) -> QgsMapLayer:
    """Return a layer that QGIS could open."""
    if not layer.isValid():
        sys.exit(f"QGIS cannot open {layer.source()}.")
    return layer


def main(demo: Path) -> None:
    """Draw the image, and the map and its polygons over it, side by side."""
    with tempfile.TemporaryDirectory() as temporary:  # QGIS writes statistics beside rasters
        for file in (IMAGE, demo / "map.tif", demo / "map.qml", demo / "map.gpkg"):
            shutil.copy(file, temporary)
        folder = Path(temporary)
        image = opened(QgsRasterLayer(str(folder / IMAGE.name), "image"))
        classes = opened(QgsRasterLayer(str(folder / "map.tif"), "map"))
        polygons = opened(QgsVectorLayer(str(folder / "map.gpkg"), "polygons"))
        print(f"{classes.renderer().type()} with {len(classes.renderer().classes())} classes;", end=" ")
        print(f"{polygons.featureCount()} polygons, drawn by {polygons.renderer().type()}")
        classes.setOpacity(0.75)
        panels = {
            "Image": [image],
            "Map, in the style beside it": [classes, image],
            "Polygons, in the style inside the GeoPackage": [polygons, image],
        }
        extent = window(image.extent())
        draw({title: rendered(layers, extent) for title, layers in panels.items()}).save(str(PICTURE))
    print(f"Wrote {PICTURE}")


def window(whole: QgsRectangle) -> QgsRectangle:
    """Return a square in the middle of an extent."""
    half, centre = SHOWN * whole.height() / 2, whole.center()
    return QgsRectangle(centre.x() - half, centre.y() - half, centre.x() + half, centre.y() + half)


def rendered(layers: list[QgsMapLayer], extent: QgsRectangle) -> QImage:
    """Render layers, the topmost first, as the map canvas does."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[-1].crs())
    settings.setExtent(extent)
    settings.setOutputSize(QSize(SIDE, SIDE))
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    return job.renderedImage()


def draw(panels: dict[str, QImage]) -> QImage:
    """Return the pictures beside each other, each below its title."""
    picture = QImage(len(panels) * (SIDE + GAP) - GAP, SIDE + TITLE, QImage.Format_RGB32)
    picture.fill(QColor("white"))
    painter = QPainter(picture)
    painter.setFont(QFont("DejaVu Sans", 11))
    for number, (title, image) in enumerate(panels.items()):
        left = number * (SIDE + GAP)
        painter.drawText(QRect(left, 0, SIDE, TITLE), Qt.AlignCenter, title)
        painter.drawImage(left, TITLE, image)
    painter.end()
    return picture


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    application = QgsApplication([], False)
    application.initQgis()
    try:
        main(Path(sys.argv[1]))
    finally:
        application.exitQgis()
