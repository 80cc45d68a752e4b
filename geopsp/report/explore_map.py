"""explore: a map and its polygons as an interactive view in a notebook, which needs no network."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from geopsp.core.escape import printable
from geopsp.core.extras import require_packages
from geopsp.core.grid import Grid
from geopsp.core.notebook_html import class_swatch, html_facts
from geopsp.core.options import require_bool, require_int
from geopsp.core.pictures import png_of_colors
from geopsp.errors import GridError
from geopsp.raster.class_map import Overview, read_overview
from geopsp.raster.find_images import Images
from geopsp.report.map_figure import read_images
from geopsp.report.map_polygons import read_map_polygons
from geopsp.training.plots import rgb_band_indices, to_rgb

WEB_MERCATOR, WGS84 = CRS.from_epsg(3857), CRS.from_epsg(4326)

MAX_POLYGONS = 5_000
"""Polygons in the view: the largest ones; a browser draws more of them slowly."""

EQUATOR = 40_075_016.7
"""Metres around the Earth, which are 256 pixels at zoom 0."""

ZOOM_STEP = 0.25

CLASS_FIELDS = ("class", "name", "class_name")
"""Fields in which polygons name their class."""


def explore(
    path: str | Path,
    polygons: str | Path | gpd.GeoDataFrame | None = None,
    *,
    images: Images | None = None,
    rgb_bands: Sequence[str | int] | None = None,
    pixels: int = 2000,
    basemap: bool = False,
) -> Any:
    """Show a class raster, and polygons over it, in a view that can be zoomed and moved; its layers can be hidden.

    Args:
        path: The map, e.g. what `classify_pixels` returned.
        polygons: Polygons of it; of many the largest are shown. What is known of one appears when the mouse is on it.
        images: What the map was made of, shown below it.
        rgb_bands: Names or numbers of the bands to show as red, green and blue.
        pixels: Pixels along the longer side of the map, which is read from its overviews.
        basemap: True shows OpenStreetMap below, which needs a network.

    Returns:
        An `ipyleaflet.Map`.

    Raises:
        OptionError: if ipyleaflet is not installed.
        InputNotFoundError, RasterError, GridError, BandError, LabelError: as the input is.
    """
    require_packages("`explore`", ("ipyleaflet",), "notebook")
    require_int("pixels", pixels, minimum=1)
    require_bool("basemap", basemap)
    overview = read_overview(path, pixels, crs=WEB_MERCATOR)
    shapes = None if polygons is None else read_map_polygons(polygons, overview.grid, most=MAX_POLYGONS)
    view = _new_view(overview.grid, basemap=basemap)
    if images is not None:
        view.add(_image_layer("image", _image_colors(images, overview.grid, rgb_bands), overview.grid))
    classes = _image_layer(printable(Path(path).name), overview.colors(), overview.grid)
    view.add(classes)
    _add_controls(view, classes, overview)
    if shapes is not None:
        _add_polygons(view, shapes, overview)
    return view


def _new_view(grid: Grid, *, basemap: bool) -> Any:
    """Return a view of the grid's extent, without layers but the basemap."""
    import ipyleaflet

    west, south, east, north = transform_bounds(WEB_MERCATOR, WGS84, *grid.bounds())
    if not all(map(math.isfinite, (west, south, east, north))):
        raise GridError("The map lies where Web Mercator does not reach, so it cannot be explored. Use `show_map`.")
    layers = (ipyleaflet.basemap_to_tiles(ipyleaflet.basemaps.OpenStreetMap.Mapnik),) if basemap else ()
    view = ipyleaflet.Map(
        layers=layers, center=((south + north) / 2, (west + east) / 2), zoom=_zoom(grid), zoom_snap=ZOOM_STEP,
        max_zoom=24, scroll_wheel_zoom=True, layout={"height": "32rem"},
    )  # fmt: skip
    view.add(ipyleaflet.ScaleControl(position="bottomleft", imperial=False))
    view.add(ipyleaflet.FullScreenControl())
    view.add(ipyleaflet.LayersControl(position="topright"))
    return view


def _zoom(grid: Grid) -> float:
    """Return the zoom at which a grid in Web Mercator fits into 700 x 480 pixels."""
    left, bottom, right, top = grid.bounds()
    metres = max((right - left) / 700, (top - bottom) / 480)  # of a pixel
    zoom = math.log2(EQUATOR / 256 / metres)
    return float(np.clip(math.floor(zoom / ZOOM_STEP) * ZOOM_STEP, 0, 24))


def _image_layer(name: str, colors: NDArray[np.uint8], grid: Grid) -> Any:
    import ipyleaflet

    west, south, east, north = transform_bounds(WEB_MERCATOR, WGS84, *grid.bounds())
    return ipyleaflet.ImageOverlay(url=png_of_colors(colors), bounds=((south, west), (north, east)), name=name)


def _image_colors(images: Images, grid: Grid, rgb_bands: Sequence[str | int] | None) -> NDArray[np.uint8]:
    """Return images on a grid as (rows, cols, 4) colours, transparent where they are invalid."""
    image, bands = read_images(images, grid)
    rgb = to_rgb(image.data, image.valid, rgb_band_indices(bands, rgb_bands))
    return np.dstack([np.round(255 * rgb), 255 * image.valid]).astype(np.uint8)


def _add_controls(view: Any, classes: Any, overview: Overview) -> None:
    """Add the legend, and a slider for the opacity of the classes."""
    import ipyleaflet
    import ipywidgets

    shares = overview.shares()
    rows = [f"<div>{class_swatch(info)} {shares[info.code]:.1%}</div>" for info in overview.legend if shares[info.code]]
    slider = ipywidgets.FloatSlider(
        1.0, min=0, max=1, step=0.05, description="opacity", readout=False, layout={"width": "14rem"}
    )
    ipywidgets.jslink((slider, "value"), (classes, "opacity"))  # in the browser, so that it works in saved pages too
    box = ipywidgets.VBox([slider, ipywidgets.HTML("".join(rows), layout={"margin": "0 .6rem"})])
    view.add(ipyleaflet.WidgetControl(widget=box, position="bottomright"))


def _add_polygons(view: Any, shapes: gpd.GeoDataFrame, overview: Overview) -> None:
    """Add polygons in the colours of their classes, and what is known of the one under the mouse."""
    import ipyleaflet
    import ipywidgets

    colors = {info.name: info.color for info in overview.legend}
    field = next((name for name in CLASS_FIELDS if name in shapes and shapes[name].isin(colors).any()), None)

    def style(feature: dict[str, Any]) -> dict[str, Any]:
        color = colors.get(str(feature["properties"].get(field)), "#000000")
        return {"color": "#000000", "weight": 1, "fillColor": color, "fillOpacity": 0.35}

    names = [str(name) for name in shapes.columns if name not in {"color", shapes.geometry.name}]
    text = ipywidgets.HTML()

    def describe(properties: dict[str, Any], **_: Any) -> None:
        facts = {name: properties.get(name) for name in names}
        texts = {name: f"{value:,.2f}" if isinstance(value, float) else str(value) for name, value in facts.items()}
        text.value = f'<div style="line-height:1.3;padding:0 .6em">{html_facts(texts)}</div>'

    data = json.loads(shapes.to_crs(WGS84).to_json(default=str))
    layer = ipyleaflet.GeoJSON(data=data, style_callback=style, hover_style={"weight": 3}, name="polygons")
    layer.on_hover(describe)
    view.add(layer)
    view.add(ipyleaflet.WidgetControl(widget=text, position="topleft", min_width=0, max_width=400))
