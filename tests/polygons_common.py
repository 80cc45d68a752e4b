"""Class rasters in memory, traced by geopsp and by rasterio."""

from __future__ import annotations

from collections import Counter

import numpy as np
import rasterio
import shapely
from affine import Affine
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import shapes

from geopsp.core.connected_regions import label_regions
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.borders.rings import build_rings
from geopsp.polygons.borders.topology import build_polygons
from geopsp.polygons.borders.trace_arcs import trace_arcs
from geopsp.polygons.borders.trace_raster import trace_raster
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.features import concatenate
from geopsp.polygons.ground_metric import GroundMetric

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 4_800_000)


def rasters(classes=(0, 1, 2, IGNORE_INDEX), side=14):
    """Draw small class rasters, in which many regions touch at corners."""
    shape = hnp.array_shapes(min_dims=2, max_dims=2, max_side=side)
    return hnp.arrays(np.uint8, shape, elements=st.sampled_from(classes), fill=None)


class Pixels:
    """A class raster in memory."""

    def __init__(self, codes, transform=TRANSFORM):
        self.codes = codes
        self.grid = Grid(rasterio.CRS.from_epsg(32633), transform, codes.shape[1], codes.shape[0])

    def read(self, window):
        found = np.full((window.height, window.width), IGNORE_INDEX, np.uint8)
        inside = window.intersect(self.grid.full_window)
        found[inside.slices(window)] = self.codes[inside.slices(self.grid.full_window)]
        return found


def swept(codes, **options):
    """Return all features of a raster."""
    pixels = Pixels(codes)
    return concatenate(
        list(trace_raster(pixels, GroundMetric.from_grid(pixels.grid), lambda found: found, **{"threads": 1} | options))
    )


def trace_polygons(path, *, connectivity=4):
    """Return the geometries of a class raster file in its CRS, and their codes."""
    with ClassRaster.open(path) as raster:
        transform = raster.grid.transform
        batches = trace_raster(
            raster,
            GroundMetric.from_grid(raster.grid),
            lambda features: (features.to_shapely(transform), features.codes),
            connectivity=connectivity,
        )
        geometries, codes = zip(*batches, strict=True)
    return np.concatenate(geometries), np.concatenate(codes)


def traced(codes, *, connectivity=4, transform=TRANSFORM):
    """Return geometries and codes by rasterio; 8-connected geometries are made valid."""
    found = list(shapes(codes, mask=codes != IGNORE_INDEX, connectivity=connectivity, transform=transform))
    polygons = np.array([shapely.geometry.shape(shape) for shape, _ in found], object)
    return shapely.make_valid(polygons), np.array([code for _, code in found], np.uint8)


def counted(polygons, codes):
    """Count pairs of code and outline, to compare them regardless of order."""
    return Counter(zip(codes.tolist(), shapely.to_wkb(shapely.normalize(polygons)).tolist(), strict=True))


def cell(codes):
    """Return the graph of a raster's arcs and the rings of all its regions."""
    labels, count = label_regions(np.asarray(codes, np.uint8))
    graph = trace_arcs(labels)
    return graph, build_rings(graph, np.arange(-1, count, dtype=np.int32), count)


def shapes_of(arcs, rings):
    """Return geometries in columns and rows."""
    return build_polygons(arcs, rings).to_shapely(Affine.identity())


def lines(arcs):
    """Return (vertices, 2) of each arc."""
    return [arcs.xy[low:high] for low, high in zip(arcs.starts[:-1], arcs.starts[1:], strict=True)]


def ragged(codes, seed, *, height=2, width=3):
    """Enlarge each pixel to `height` x `width`, with ragged borders."""
    big = np.kron(codes, np.ones((height, width), np.uint8))
    rows, cols = np.indices(big.shape) + np.random.default_rng(seed).integers(-1, 2, (2, *big.shape))
    return big[rows.clip(0, big.shape[0] - 1), cols.clip(0, big.shape[1] - 1)]


def blobs(size=60, seed=3, sigma=2):
    """Return a map of rough patches, single pixels, holes and an island of nodata."""
    random = np.random.default_rng(seed)
    noise = random.random((size, size))
    for axis in (0, 1):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-sigma, sigma + 1))
    codes = np.digitize(noise, np.quantile(noise, [0.3, 0.6, 0.85])).astype(np.uint8)
    codes[random.random(codes.shape) < 0.03] = 7
    codes[size // 3 : size // 2, size // 4 : size // 3] = IGNORE_INDEX
    return codes
