"""A module imports only from floors below its own; start-up is quick; public names are pinned."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import geopsp

HOUSE = Path(geopsp.__file__).parent

FLOORS = [
    {"errors"},
    {"bands", "grid", "legend", "machine", "outputs", "progress", "stats", "validity"},
    {"burn", "classes", "geotiff", "layers", "rasters", "sampling", "shapes", "tiling", "layouts"},
    {"compiled", "polygons.ahead"},
    {"polygons.entire", "polygons.geoparquet", "polygons.label", "polygons.planar"},
    {"polygons.settings", "polygons.style"},
    {"polygons.gather", "polygons.metric", "polygons.regular", "polygons.simplify", "polygons.smooth", "polygons.wkb"},
    {"polygons.files", "polygons.sums", "polygons.trace"},
    {"polygons.cuts", "polygons.faces"},
    {"polygons.cell"},
    {"polygons.corners"},
    {"polygons.chains"},
    {"polygons.seams"},
    {"bandfiles", "classtable", "esrifiles", "sources", "vectors", "features"},
    {"polygons.codes", "polygons.table"},
    {"polygons.graph"},
    {"polygons.holes", "polygons.merge"},
    {"polygons.clean"},
    {"maps.kernels", "maps.products", "maps.plan", "maps.settings"},
    {"maps.options"},
    {"maps.reduce", "maps.sidecars"},
    {"maps.blocks"},
    {"maps.joined"},
    {"maps.cog", "maps.sieve"},
    {"esri", "mosaic", "overlap", "stac"},
    {"balance", "chipset", "images"},
    {"scene", "split"},
    {"cutting", "labelraster", "maps.sides", "maps.targets", "polygons.confidence"},
    {"chipfiles", "labels", "polygons.sweep"},
    {"polygons.maker"},
    {"polygons.making"},
    {"ground"},
    {"reels", "tally"},
    {"lottery"},
    {"harvest"},
    {"export"},
    {"chips"},
    {"models.layers", "models.pointrend", "models.encoder", "augment"},
    {"models.pyramid", "models.aspp", "models.decoder", "models.heads", "models.network"},
    {"models.build", "region_losses", "metrics", "dataset"},
    {"losses"},
    {"cache", "loading", "options", "package", "place", "step", "windows"},
    {"plotting", "report"},
    {"data", "pretrained", "scoring"},
    {"memory", "task"},
    {"journal", "rates"},
    {"chipgrid", "training"},
    {"classifier"},
    {"presets"},
    {"maps.clients", "maps.fit", "maps.job", "maps.predictor", "maps.preflight", "maps.shares"},
    {"maps.blend"},
    {"maps.stream"},
    {"maps.parts"},
    {"maps.cluster", "maps.cost"},
    {"maps.making"},
    {"mapping"},
    {"demo", "flags"},
    {"cli"},
]
"""From the ground up. Modules of one floor do not know each other."""

WITHOUT_TORCH = set().union(*FLOORS[: FLOORS.index({"chips"}) + 1])

PUBLIC = {
    "ChipSet", "ClassInfo", "Confusion", "DeepLab", "FCNClassifier", "GeopspError", "Legend", "PSPNetClassifier",
    "PixelClassifier", "Scene", "TrainingData", "UnetClassifier", "__version__", "classify_pixels",
    "export_training_data", "prepare_data", "raster_to_polygons",
}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The modules that a file imports, ours without their first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.removeprefix("geopsp.") for name in found}


MODULES = {module_name(path): path for path in HOUSE.rglob("*.py") if path.name != "__init__.py"}


def test_every_module_has_a_floor():
    assert set(MODULES) == set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down(name):
    below = set()
    for floor in FLOORS:
        if name in floor:
            break
        below |= floor
    ours = imports(MODULES[name]) & set(MODULES)
    assert ours <= below, f"{name} imports {sorted(ours - below)} from its own floor or above"


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_lower_floors_know_no_torch(name):
    assert not {n for n in imports(MODULES[name]) if n.split(".")[0] in {"torch", "torchvision", "lightning"}}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("click", {"cli", "flags"}),
        ("matplotlib", {"chipgrid", "plotting"}),
        ("lightning", {"task", "journal", "place", "training"}),
        ("rich", {"progress"}),
        ("distributed", {"maps.clients", "maps.cluster"}),
    ],
)
def test_libraries_stay_where_they_belong(library, allowed):
    users = {name for name, path in MODULES.items() if any(n.split(".")[0] == library for n in imports(path))}
    users -= {"classifier", "data"} if library == "matplotlib" else set()  # they name the type of a figure
    users -= {"classifier"} if library == "lightning" else set()  # it names the type of a logger
    assert users == allowed


def test_public_names():
    assert set(geopsp.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(geopsp, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = geopsp.nonsense


def test_import_loads_nothing_heavy():
    """Neither does the shell's help: that is what makes both start in a fraction of a second."""
    code = (
        "import sys, geopsp, geopsp.cli; "
        "heavy = {'torch', 'lightning', 'rasterio', 'numpy', 'geopandas', 'matplotlib', 'rich'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
