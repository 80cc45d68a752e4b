"""Draw qgis_plugin.png with QGIS itself: the dialog of "Predict with a geopsp model".

Run by the Python that QGIS belongs to (Debian: `apt-get install python3-qgis`):

    python3 docs/make_plugin_picture.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest import mock

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
REPOSITORY = Path(__file__).parents[1]
sys.path += ["/usr/share/qgis/python/plugins", str(REPOSITORY / "qgis")]
sys.modules.setdefault("mock", mock)  # what QGIS's own tests use

PICTURE = REPOSITORY / "docs" / "qgis_plugin.png"
SIZE = 980, 860
VALUES = {
    "MODEL": "/maps/land_cover.onnx",
    "IMAGES": [str(REPOSITORY / "sample_data" / f"scene_{name}.tif") for name in ("west", "east")],
    "MIN_AREA": 50,
    "SIMPLIFY": 0.5,
    "OUTPUT": "/maps/land_cover.tif",
    "CONFIDENCE": "/maps/confidence.tif",
    "POLYGONS": "/maps/land_cover.gpkg",
}


def main() -> None:
    """Open the dialog with some values, as a user would, and take a picture of it."""
    import qgis.utils
    from qgis.core import QgsApplication
    from qgis.gui import QgsBrowserGuiModel, QgsMapCanvas
    from qgis.testing.mocked import get_iface

    application = QgsApplication([], True)
    application.initQgis()
    qgis.utils.iface = get_iface()
    model, canvas = QgsBrowserGuiModel(), QgsMapCanvas()
    qgis.utils.iface.browserModel = lambda: model
    qgis.utils.iface.mapCanvas = lambda: canvas
    qgis.utils.iface.activeLayer = lambda: None
    from geopsp_processing import classFactory
    from processing.core.Processing import Processing
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    Processing.initialize()
    plugin = classFactory(None)
    plugin.initProcessing()
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geopsp:predict")
    dialog = AlgorithmDialog(algorithm, False, None)
    dialog.setParameters(VALUES)
    dialog.show()
    dialog.resize(*SIZE)
    application.processEvents()
    dialog.grab().save(str(PICTURE))
    print(f"Wrote {PICTURE}", flush=True)
    os._exit(0)  # the widgets do not survive the end of this function


if __name__ == "__main__":
    main()
