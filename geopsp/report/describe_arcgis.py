"""A deep learning package of ArcGIS."""

from __future__ import annotations

from geopsp.core.escape import printable_lines
from geopsp.models.arcgis_package import OWN_MODEL, ArcgisPackage
from geopsp.report.description import ANY_IMAGE, Description, shell_line


def describe_arcgis(package: ArcgisPackage) -> Description:
    """Describe a package by its model definition, and what to do with it."""
    definition = package.definition
    lines = [
        f"{package.path}: {package.title}",
        f"  tile       {definition.height or 'unknown'} pixels",
        f"  bands      {', '.join(package.bands) or 'unknown'}",
        f"  classes    {', '.join(package.classes) or 'unknown'}",
        f"  note       {package.advice}.",
    ]
    content = {
        "path": str(package.path),
        "made_by_geopsp": package.is_ours,
        "name": definition.name,
        "type": definition.kind,
        "model_file": definition.file,
        "backbone": package.backbone,
        "tile_size": definition.height,
        "bands": package.bands,
        "classes": package.classes,
    }
    ours = shell_line("geopsp", "predict", OWN_MODEL, ANY_IMAGE, "--out", "map.tif")
    command = ours if package.is_ours else shell_line("geopsp", "train", "CHIPS", "--out", "model")
    return Description("ArcGIS model", printable_lines(lines), content, command)
