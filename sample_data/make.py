"""Make the sample scenes and labels of this folder.

The land is drawn as polygons first: a meandering river, roads with bridges,
villages, quarries, strip fields and forests, then boats and cars.  The very
same polygons are rasterised to paint the scenes and written as the labels, so
that both agree to the pixel.  Boats and cars are drawn from one distribution
of size, colour and brightness; only what lies around them tells them apart.

With ``--kind wide`` it draws scenes of another kind instead: lakes and aprons
of one look, wide enough that only their far rims tell what floats from what
drives.

Usage: ``python sample_data/make.py [--kind demo|wide] [--out DIR] [--seed N]``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d, zoom
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from shapely import LineString, MultiPoint, Point, Polygon
from shapely.affinity import rotate, translate
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring

CLASSES = ("water", "forest", "crop", "bare", "road", "building", "boat", "car")
CODE = {name: i + 1 for i, name in enumerate(CLASSES)}
CRS = "EPSG:32632"
LABEL_CRS = "EPSG:4326"
BANDS = ("red", "green", "blue", "nir")
STEP = 50  # digital numbers are rounded to this step, which keeps the files small
SUN = (0.70, 0.71)  # unit vector towards the sun (columns, rows): the sun stands in the south-east
MARGIN = 90.0  # metres of land drawn beyond the scenes so that nothing ends at their edge

Spectrum = tuple[float, float, float, float]
Floats = NDArray[np.float32]

# Reflectance x 10000 in red, green, blue and near infrared.
CLEAR_WATER: Spectrum = (400, 590, 640, 260)
LAKE_WATER: Spectrum = (300, 500, 570, 200)
MUDDY_WATER: Spectrum = (1180, 1190, 1110, 1270)
ASPHALT: Spectrum = (1160, 1160, 1120, 1280)
FOREST: Spectrum = (380, 610, 340, 3050)
CONIFER: Spectrum = (280, 470, 300, 2400)
YARD_SOIL: Spectrum = (2350, 1990, 1520, 2700)
QUARRY: tuple[Spectrum, ...] = (
    (3000, 2650, 2050, 3350),
    (2550, 2250, 1850, 2850),
    (2650, 2000, 1400, 3050),
)
SANDBANK: Spectrum = (3050, 2750, 2150, 3450)
ROOFS: tuple[Spectrum, ...] = (
    (2150, 1020, 720, 2450),
    (1850, 880, 640, 2150),
    (1400, 900, 700, 1700),
    (950, 930, 980, 1100),
    (2300, 2280, 2260, 2400),
)
HALLS: tuple[Spectrum, ...] = (
    (3400, 3450, 3450, 3650),
    (2700, 2720, 2800, 2850),
    (1500, 1900, 2300, 2300),
    (2000, 1000, 750, 2300),
)
VEHICLES: tuple[Spectrum, ...] = (
    (4300, 4300, 4250, 4200),
    (3900, 3950, 3950, 3900),
    (2550, 600, 520, 2700),
    (500, 900, 2400, 1250),
    (2250, 2280, 2300, 2250),
    (3300, 2550, 550, 3200),
    (520, 1450, 950, 1650),
    (720, 620, 600, 850),
)


@dataclass(frozen=True)
class Crop:
    """How one kind of field looks.

    Attributes:
        spectrum: Mean reflectance x 10000 per band.
        period: Distance between rows in metres.
        depth: Relative strength of the rows.
        weight: How often the crop is grown.
    """

    spectrum: Spectrum
    period: float
    depth: float
    weight: float


CROPS = (
    Crop((520, 830, 430, 4150), 3.1, 0.04, 3.0),  # winter wheat
    Crop((660, 1000, 540, 3850), 9.0, 0.07, 3.0),  # meadow, mown in swaths
    Crop((500, 780, 390, 4600), 4.2, 0.13, 2.0),  # maize
    Crop((1480, 1600, 420, 4300), 5.0, 0.03, 1.2),  # rape in bloom
    Crop((1700, 1480, 820, 3350), 3.6, 0.05, 1.5),  # ripening barley
    Crop((380, 800, 360, 4950), 4.8, 0.10, 1.5),  # sugar beet
    Crop((1080, 1130, 720, 3000), 5.2, 0.16, 1.2),  # young rows on soil
    Crop((400, 690, 350, 3950), 6.0, 0.05, 1.5),  # clover
)


@dataclass(frozen=True)
class Site:
    """A stretch of land in metres from its south-west corner.

    Positions are fractions along (``u``) and across (``v``) the river; with
    ``upright`` the river runs south to north instead of west to east.

    Attributes:
        left: Easting of the west edge.
        top: Northing of the north edge.
        width: Extent to the east in metres.
        height: Extent to the south in metres.
        upright: Whether the river runs south to north.
        bridges: Where main roads cross the river, as ``u``.
        villages: Village centres as ``(u, v)``.
        muddy: Stretches of muddy, glinting water as ``u`` ranges.
        lakes: Number of lakes.
        quarries: Number of quarries.
        estates: Number of paved yards with halls.
        farms: Number of lone farms.
        boats: Number of boats.
        cars: Number of cars.
        salt: Number added to the seed.
    """

    left: int
    top: int
    width: int
    height: int
    upright: bool
    bridges: tuple[float, ...]
    villages: tuple[tuple[float, float], ...]
    muddy: tuple[tuple[float, float], ...]
    lakes: int
    quarries: int
    estates: int
    farms: int
    boats: int
    cars: int
    salt: int

    @property
    def along(self) -> int:
        """Extent along the river in metres."""
        return self.height if self.upright else self.width

    @property
    def across(self) -> int:
        """Extent across the river in metres."""
        return self.width if self.upright else self.height

    def to_xy(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn positions along and across the river into x and y."""
        return np.column_stack((v, u) if self.upright else (u, v))

    def box(self, margin: float = 0.0) -> Polygon:
        """Return the rectangle of the site, grown by ``margin`` metres."""
        return shapely.box(-margin, -margin, self.width + margin, self.height + margin)


@dataclass(frozen=True)
class Shot:
    """One scene as the sensor saw it.

    Attributes:
        name: Name of the file without its suffix.
        left: Easting of the west edge.
        top: Northing of the north edge.
        width: Number of columns.
        height: Number of rows.
        gain: Factor from reflectance to digital number.
        haze: Additive haze per band.
        wedge: ``(a, b, c)``: pixels with ``a * column + b * row < c`` hold no data.
    """

    name: str
    left: int
    top: int
    width: int
    height: int
    gain: float
    haze: Spectrum
    wedge: tuple[float, float, float]


TRAIN_SITE = Site(
    left=601234, top=5301754, width=2690, height=1500, upright=False,
    bridges=(0.26, 0.76), villages=((0.27, 0.82), (0.12, 0.12), (0.75, 0.12), (0.91, 0.82)),
    muddy=((0.11, 0.22), (0.60, 0.70)), lakes=3, quarries=5, estates=11, farms=16,
    boats=390, cars=430, salt=0,
)  # fmt: skip
TEST_SITE = Site(
    left=609871, top=5296343, width=1120, height=1060, upright=True,
    bridges=(0.50,), villages=((0.52, 0.83), (0.22, 0.13)),
    muddy=((0.68, 0.88),), lakes=1, quarries=2, estates=5, farms=5,
    boats=140, cars=150, salt=1000,
)  # fmt: skip
TRAIN_SHOTS = (
    Shot("scene_west", 601234, 5301717, 1500, 1420, 1.0, (70, 110, 170, 40), (1.0, 0.09, 95.0)),
    Shot("scene_east", 602464, 5301754, 1460, 1500, 0.84, (210, 270, 380, 130),
         (-0.62, -1.0, -2180.0)),
)  # fmt: skip
TEST_SHOTS = (
    Shot("scene_test", 609871, 5296343, 1120, 1060, 0.92, (150, 180, 290, 90),
         (-1.0, 0.45, -1010.0)),
)  # fmt: skip


@dataclass
class Piece:
    """One labelled polygon and how to paint it.

    Attributes:
        shape: Outline in metres from the south-west corner of the site.
        name: Land-cover class.
        spectrum: Mean reflectance x 10000 per band.
        angle: Direction of rows or of the long axis in radians.
        period: Distance between rows in metres, 0 for none.
        depth: Relative strength of the rows.
    """

    shape: BaseGeometry
    name: str
    spectrum: Spectrum
    angle: float = 0.0
    period: float = 0.0
    depth: float = 0.0


@dataclass
class Slab:
    """An oriented rectangle: a wing of a roof, or a whole boat or car."""

    shape: Polygon
    x: float
    y: float
    angle: float
    length: float
    spectrum: Spectrum
    vehicle: bool


@dataclass
class Road:
    """A road by its centre line and width in metres."""

    line: LineString
    width: float

    @property
    def shape(self) -> BaseGeometry:
        """The paved surface."""
        return self.line.buffer(self.width / 2, quad_segs=3, cap_style="flat", join_style="round")


@dataclass
class Land:
    """Everything that lies on a site, gathered step by step."""

    site: Site
    rng: np.random.Generator
    axis: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    widths: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    river: BaseGeometry = field(default_factory=Polygon)
    lakes: list[BaseGeometry] = field(default_factory=list)
    main: list[Road] = field(default_factory=list)
    minor: list[Road] = field(default_factory=list)
    yards: list[tuple[Polygon, float]] = field(default_factory=list)
    zones: list[tuple[BaseGeometry, float]] = field(default_factory=list)
    bare: list[Piece] = field(default_factory=list)
    ground: list[Piece] = field(default_factory=list)
    objects: list[Piece] = field(default_factory=list)
    slabs: list[Slab] = field(default_factory=list)

    @property
    def roads(self) -> list[Road]:
        """All roads, main ones first."""
        return self.main + self.minor


# --------------------------------------------------------------------------- shapes


def chaikin(points: NDArray[np.float64], rounds: int = 2, closed: bool = False) -> NDArray[np.float64]:
    """Round the corners of a line by cutting them.

    Args:
        points: Vertices, without repetition of the first one when closed.
        rounds: How often to cut.
        closed: Whether the line is a ring.

    Returns:
        The vertices of the smoother line.
    """
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0) if closed else points[1:]
        before = points if closed else points[:-1]
        cut = np.stack((0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after), axis=1)
        cut = cut.reshape(-1, 2)
        points = cut if closed else np.vstack((points[:1], cut, points[-1:]))
    return points


def blob(rng: np.random.Generator, x: float, y: float, long: float, short: float) -> Polygon:
    """Draw a rounded, uneven patch.

    Args:
        rng: Source of chance.
        x: Centre.
        y: Centre.
        long: Half length in metres.
        short: Half width in metres.

    Returns:
        The outline.
    """
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones(72)
    for k in range(2, 7):
        radius += rng.normal(0, 0.22 / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi))
    outline = Polygon(np.column_stack((long * radius * np.cos(turn), short * radius * np.sin(turn))))
    return translate(rotate(outline, rng.uniform(0, 180), origin=(0, 0)), x, y).buffer(0)


def rectangle(x: float, y: float, length: float, width: float, angle: float) -> Polygon:
    """Return a rectangle around ``(x, y)`` whose length points along ``angle`` (radians)."""
    flat = shapely.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
    return rotate(flat, angle, origin=(x, y), use_radians=True)


def polygons(shape: BaseGeometry, least: float = 0.05) -> list[Polygon]:
    """Return the polygons of any geometry that are larger than ``least`` square metres."""
    parts = shapely.get_parts(shapely.make_valid(shape))
    found: list[Polygon] = []
    for part in parts:
        if part.geom_type == "Polygon":
            found.append(part)
        elif part.geom_type == "MultiPolygon":
            found.extend(shapely.get_parts(part))
    return [part for part in found if part.area > least]


def minus(shape: BaseGeometry, blocker: BaseGeometry) -> BaseGeometry:
    """Subtract on a centimetre grid, looking only at the near part of ``blocker``."""
    x0, y0, x1, y1 = shape.bounds
    near = shapely.make_valid(shapely.clip_by_rect(blocker, x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    if near.is_empty:
        return shape
    return shapely.difference(shape, near, grid_size=0.01)


def heading(line: LineString, at: float) -> float:
    """Return the direction of a line at a distance from its start, in radians."""
    here, there = line.interpolate(max(at - 2, 0)), line.interpolate(min(at + 2, line.length))
    return float(np.arctan2(there.y - here.y, there.x - here.x))


def beside(line: LineString, at: float, offset: float) -> tuple[float, float, float]:
    """Return position and direction at ``offset`` metres to the left of a line."""
    angle = heading(line, at)
    point = line.interpolate(at)
    return point.x - offset * np.sin(angle), point.y + offset * np.cos(angle), angle


def jitter(rng: np.random.Generator, spectrum: Sequence[float], spread: float) -> Spectrum:
    """Vary the brightness, and slightly the colour, of a spectrum."""
    factor = np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, spread / 4, 4))
    red, green, blue, nir = np.asarray(spectrum) * factor
    return float(red), float(green), float(blue), float(nir)


# --------------------------------------------------------------------------- the land


def lay_river(land: Land) -> None:
    """Let a river of changing width meander through the site."""
    site, rng = land.site, land.rng
    u = np.arange(-2 * MARGIN, site.along + 2 * MARGIN, 6.0)
    swing = min(150.0, 0.125 * site.across)
    v = 0.47 * site.across + np.zeros_like(u)
    for length, share in ((rng.uniform(820, 960), 1.0), (rng.uniform(430, 520), 0.28)):
        v += share * swing * np.sin(2 * np.pi * u / length + rng.uniform(0, 2 * np.pi))
    land.axis = site.to_xy(u, v)
    wander = gaussian_filter1d(rng.normal(size=u.size), 14)
    land.widths = np.clip(97 + 20 * wander / wander.std(), 64, 120)
    ahead = np.gradient(land.axis, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.column_stack((-ahead[:, 1], ahead[:, 0])) * (land.widths / 2)[:, None]
    rough = gaussian_filter1d(rng.normal(size=(u.size, 2)), 1.5, axis=0) * 2.5
    left = land.axis + side * (1 + rough[:, :1] / 60)
    right = land.axis - side * (1 + rough[:, 1:] / 60)
    ring = chaikin(np.vstack((left, right[::-1])), 1, closed=True)
    land.river = Polygon(ring).buffer(0).simplify(0.2)


def lay_main_roads(land: Land) -> None:
    """Lay curved main roads: one on either side of the river, and the bridges."""
    site, rng = land.site, land.rng
    reach = np.arange(-MARGIN, site.along + MARGIN, 15.0)
    for level in (0.82, 0.12):
        sway = gaussian_filter1d(rng.normal(size=reach.size), 12, mode="nearest")
        v = level * site.across + 0.018 * site.across * sway / sway.std()
        land.main.append(Road(LineString(site.to_xy(reach, v)), rng.uniform(14, 18)))
    reach = np.arange(-MARGIN, site.across + MARGIN, 15.0)
    for bridge in site.bridges:
        sway = gaussian_filter1d(rng.normal(size=reach.size), 14, mode="nearest")
        u = bridge * site.along + 28 * sway / sway.std()
        land.main.append(Road(LineString(site.to_xy(u, reach)), rng.uniform(16, 20)))


def hard(land: Land) -> BaseGeometry:
    """Return all water, pavement and villages laid so far as one geometry."""
    parts = [road.shape for road in land.roads] + [land.river, *land.lakes]
    parts += [yard for yard, _ in land.yards] + [zone for zone, _ in land.zones]
    parts += [piece.shape for piece in land.bare]
    return shapely.union_all(parts)


def settle(land: Land, make: Callable[[float, float], Polygon], clearance: float, tries: int = 300) -> Polygon | None:
    """Find a free place for a shape.

    Args:
        land: The land so far.
        make: Draws the shape around a position.
        clearance: Distance to keep from water, pavement and villages in metres.
        tries: How many places to try.

    Returns:
        The shape, or None when there is no room.
    """
    taken = hard(land)
    shapely.prepare(taken)
    for _ in range(tries):
        x = land.rng.uniform(30, land.site.width - 30)
        y = land.rng.uniform(30, land.site.height - 30)
        shape = make(x, y)
        if not taken.intersects(shape.buffer(clearance)):
            return shape
    return None


def found_villages(land: Land) -> None:
    """Mark village grounds along the main roads and lay their streets."""
    site, rng = land.site, land.rng
    for u, v in site.villages:
        wanted = site.to_xy(np.array([u * site.along]), np.array([v * site.across]))[0]
        road = min(land.main, key=lambda r: r.line.distance(Point(wanted)))
        at = road.line.project(Point(wanted))
        centre, angle = road.line.interpolate(at), heading(road.line, at)
        zone = blob(rng, centre.x, centre.y, rng.uniform(195, 225), rng.uniform(165, 190))
        parcels = [p for p in village_parcels(zone, angle) if zone.contains(p.centroid)]
        zone = shapely.union_all(parcels, grid_size=0.01).difference(land.river.buffer(28))
        zone = max(polygons(zone), key=lambda part: part.area)
        land.zones.append((zone, angle))
        lay_streets(land, zone, centre, angle)


def village_parcels(zone: BaseGeometry, angle: float) -> list[Polygon]:
    """Return a turned grid of parcels around the middle of a village."""
    x, y = shapely.box(*zone.bounds).centroid.coords[0]
    return [
        rotate(
            shapely.box(x + east, y + north, x + east + 36, y + north + 33),
            angle,
            origin=(x, y),
            use_radians=True,
        )
        for east in np.arange(-288, 281, 36.0)
        for north in np.arange(-264, 261, 33.0)
    ]


def lay_streets(land: Land, zone: BaseGeometry, centre: Point, angle: float) -> None:
    """Lay the streets of one village parallel and square to its main road."""
    rng = land.rng
    inner = zone.buffer(-16)
    for offset in (-132, -66, 66, 132):
        at = offset + rng.uniform(-3, 3)
        street = LineString([(centre.x - 400, centre.y + at), (centre.x + 400, centre.y + at)])
        add_streets(land, rotate(street, angle, origin=centre, use_radians=True), inner, 8.4)
    for offset in (-95, 90):
        at = offset + rng.uniform(-20, 20)
        street = LineString([(centre.x + at, centre.y - 400), (centre.x + at, centre.y + 400)])
        add_streets(land, rotate(street, angle, origin=centre, use_radians=True), inner, 9.2)


def add_streets(land: Land, line: LineString, inside: BaseGeometry, width: float) -> None:
    """Add the parts of a street that lie inside a village."""
    for part in shapely.get_parts(line.intersection(inside)):
        if part.length > 40:
            land.minor.append(Road(part, width))


def dig_bare_land(land: Land) -> None:
    """Put lakes, quarries and, on the inner banks of the bends, sandbanks."""
    rng = land.rng
    for _ in range(land.site.lakes):
        size = rng.uniform(95, 125), rng.uniform(48, 66)
        lake = settle(land, lambda x, y, s=size: blob(rng, x, y, *s), 22)
        if lake is not None:
            land.lakes.append(lake)
    for number in range(land.site.quarries):
        size = rng.uniform(78, 110), rng.uniform(58, 80)
        pit = settle(land, lambda x, y, s=size: blob(rng, x, y, *s), 14)
        if pit is not None:
            look = jitter(rng, QUARRY[number % len(QUARRY)], 0.05)
            land.bare.append(Piece(pit, "bare", look, rng.uniform(0, np.pi), 1.0))
    add_sandbanks(land)


def add_sandbanks(land: Land) -> None:
    """Put sand where the river bends most, on the inner side."""
    rng = land.rng
    ahead = np.gradient(land.axis, axis=0)
    turn = np.gradient(gaussian_filter1d(np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0])), 6))
    bends = [i for i in range(8, len(turn) - 8) if abs(turn[i]) == np.abs(turn[i - 8 : i + 9]).max()]
    roads = shapely.union_all([road.shape for road in land.main]).buffer(10)
    for i in bends:
        normal = np.array([-ahead[i, 1], ahead[i, 0]]) / np.linalg.norm(ahead[i])
        bank = land.axis[i] + np.sign(turn[i]) * normal * land.widths[i] / 2
        reach = blob(rng, bank[0], bank[1], rng.uniform(60, 85), rng.uniform(45, 60))
        sand = land.river.buffer(rng.uniform(16, 26)).intersection(reach).buffer(-4).buffer(4)
        for part in polygons(minus(sand.union(land.river.intersection(reach)), roads), 300):
            dry = part.difference(land.river)
            if abs(turn[i]) > 0.008 and dry.area > 400:
                look = jitter(rng, SANDBANK, 0.04)
                land.bare.append(Piece(dry.simplify(0.2), "bare", look))


def lay_farm_roads(land: Land, cells: Sequence[Polygon], journeys: int) -> None:
    """Lay minor roads along field boundaries, as shortest ways between distant corners.

    Args:
        land: The land so far.
        cells: Blocks of fields, whose outlines the roads follow.
        journeys: Number of ways.
    """
    rng = land.rng
    corners = np.vstack([np.asarray(cell.exterior.coords)[:-1] for cell in cells])
    nodes, index = np.unique(np.round(corners, 1), axis=0, return_inverse=True)
    ends, start = [], 0
    for cell in cells:
        ring = index.ravel()[start : start + len(cell.exterior.coords) - 1]
        start += len(ring)
        ends += list(zip(ring, np.roll(ring, -1), strict=True))
    pairs = np.array(sorted({(min(a, b), max(a, b)) for a, b in ends if a != b}))
    wet = shapely.union_all([land.river.buffer(22), *[lake.buffer(12) for lake in land.lakes]])
    wet = wet.union(shapely.union_all([p.shape for p in land.bare]).buffer(6))
    lines = shapely.linestrings(nodes[pairs])
    free = ~shapely.intersects(lines, wet) & (shapely.length(lines) > 1)
    pairs, cost = pairs[free], shapely.length(lines[free])
    graph = coo_matrix((cost, (pairs[:, 0], pairs[:, 1])), shape=(len(nodes), len(nodes))).tocsr()
    for _ in range(journeys):
        start, goal = rng.choice(np.unique(pairs), 2, replace=False)
        walk(land, graph, nodes, int(start), int(goal))


def walk(land: Land, graph: coo_matrix, nodes: NDArray[np.float64], start: int, goal: int) -> None:
    """Add the shortest way between two corners to the minor roads, if there is one."""
    length, previous = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    if not np.isfinite(length[goal]) or length[goal] < 350:
        return
    way = [goal]
    while way[-1] != start:
        way.append(int(previous[way[-1]]))
    villages = shapely.union_all([zone.buffer(-30) for zone, _ in land.zones])
    done = shapely.union_all([road.line.buffer(1.0) for road in land.minor])
    line = LineString(chaikin(nodes[way], 2))
    width = float(land.rng.uniform(8.0, 9.5))
    for part in shapely.get_parts(line.difference(villages).difference(done)):
        if part.length > 25:
            land.minor.append(Road(part, width))


def add_slab(land: Land, shape: Polygon, angle: float, spectrum: Spectrum, vehicle: bool = False) -> None:
    """Remember an oriented rectangle for painting."""
    ring = np.asarray(shape.exterior.coords)
    length = float(np.abs((ring - ring.mean(axis=0)) @ (np.cos(angle), np.sin(angle))).max() * 2)
    centre = shape.centroid
    land.slabs.append(Slab(shape, centre.x, centre.y, angle, length, spectrum, vehicle))


def build(land: Land, wings: Sequence[tuple[Polygon, float]], spectrum: Spectrum, blocked: BaseGeometry) -> bool:
    """Put up a building unless something stands in its way.

    Args:
        land: The land so far.
        wings: Rectangles with the directions of their ridges.
        spectrum: Colour of the roof.
        blocked: Where nothing may be built.

    Returns:
        Whether there was room.
    """
    whole = shapely.union_all([shape for shape, _ in wings], grid_size=0.01)
    others = [piece.shape for piece in land.objects]
    if blocked.intersects(whole) or (others and shapely.distance(whole, others).min() < 4):
        return False
    land.objects.append(Piece(whole, "building", spectrum))
    for shape, angle in wings:
        add_slab(land, shape, angle, spectrum)
    return True


def house(rng: np.random.Generator, x: float, y: float, angle: float) -> list[tuple[Polygon, float]]:
    """Draw a house, in one case out of three with a second wing."""
    length, width = rng.uniform(18, 29), rng.uniform(12, 16)
    wings = [(rectangle(x, y, length, width, angle), angle)]
    if rng.random() < 0.35:
        end = (length - width) / 2 * rng.choice((-1, 1))
        out = width * 0.55 * rng.choice((-1, 1))
        wing_x = x + end * np.cos(angle) - out * np.sin(angle)
        wing_y = y + end * np.sin(angle) + out * np.cos(angle)
        square = angle + np.pi / 2
        wings.append((rectangle(wing_x, wing_y, width * 1.3, width * 0.95, square), square))
    return wings


def build_villages(land: Land) -> None:
    """Line the streets of the villages with houses."""
    paved = shapely.union_all([road.shape for road in land.roads]).buffer(2.5)
    for zone, _ in land.zones:
        blocked = paved.union(land.site.box(MARGIN).difference(zone.buffer(-3)))
        shapely.prepare(blocked)
        for road in land.roads:
            for line in shapely.get_parts(road.line.intersection(zone)):
                if line.geom_type == "LineString":
                    line_street(land, line, road.width, blocked)


def line_street(land: Land, line: LineString, width: float, blocked: BaseGeometry) -> None:
    """Put houses on both sides of one street wherever there is room."""
    rng = land.rng
    for at in np.arange(9, line.length, 4.0):
        for side in (-1, 1):
            offset = side * (width / 2 + rng.uniform(4, 8) + 6.5)
            x, y, angle = beside(line, at, offset)
            angle += rng.normal(0, 0.04) + (np.pi / 2 if rng.random() < 0.2 else 0)
            roof = jitter(rng, ROOFS[rng.choice(5, p=(0.4, 0.2, 0.15, 0.1, 0.15))], 0.08)
            if rng.random() < 0.85:
                build(land, house(rng, x, y, angle), roof, blocked)


def found_estates(land: Land) -> None:
    """Pave yards beside the main roads and put up halls next to them."""
    rng = land.rng
    for _ in range(land.site.estates * 60):
        if len(land.yards) >= land.site.estates:
            return
        road = land.main[rng.integers(len(land.main))]
        side, at = rng.choice((-1, 1)), rng.uniform(60, road.line.length - 60)
        long, deep = rng.uniform(62, 88), rng.uniform(50, 64)
        x, y, angle = beside(road.line, at, side * (road.width / 2 + deep / 2 - 4))
        yard = rectangle(x, y, long, deep, angle)
        soft = shapely.union_all([land.river, *land.lakes, *[p.shape for p in land.bare]])
        soft = shapely.union_all([soft, *[z for z, _ in land.zones], *[y for y, _ in land.yards]])
        other = shapely.union_all([r.shape for r in land.main if r is not road])
        plot = rectangle(x, y, long + 70, deep + 80, angle)
        if soft.intersects(plot) or other.intersects(plot) or not land.site.box().contains(yard):
            continue
        land.yards.append((yard, angle))
        build_halls(land, road, at, side, deep, long, angle)


def build_halls(land: Land, road: Road, at: float, side: int, deep: float, long: float, angle: float) -> None:
    """Put up one hall behind a paved yard and one or two beside it."""
    rng = land.rng
    free = shapely.union_all([r.shape for r in land.main] + [yard for yard, _ in land.yards])
    blocked = free.buffer(1.5)
    width = rng.uniform(24, 34)
    x, y, _ = beside(road.line, at, side * (road.width / 2 + deep - 4 + width / 2 + 2.5))
    look = jitter(rng, HALLS[rng.integers(len(HALLS))], 0.06)
    build(land, [(rectangle(x, y, long * rng.uniform(0.7, 1), width, angle), angle)], look, blocked)
    for end in (-1, 1):
        if rng.random() < 0.7:
            size = rng.uniform(20, 28)
            x, y, _ = beside(road.line, at, side * (road.width / 2 + deep / 2))
            x += end * (long / 2 + size / 2 + 3) * np.cos(angle)
            y += end * (long / 2 + size / 2 + 3) * np.sin(angle)
            look = jitter(rng, HALLS[rng.integers(len(HALLS))], 0.06)
            wing = rectangle(x, y, deep * 0.75, size, angle + np.pi / 2)
            build(land, [(wing, angle + np.pi / 2)], look, blocked)


def found_farms(land: Land) -> None:
    """Put lone farms with unpaved yards beside the minor roads."""
    rng = land.rng
    done = 0
    for _ in range(land.site.farms * 40):
        road = land.minor[rng.integers(len(land.minor))]
        if done >= land.site.farms or road.line.length < 60:
            continue
        side, at = rng.choice((-1, 1)), rng.uniform(20, road.line.length - 20)
        long, deep = rng.uniform(55, 75), rng.uniform(48, 62)
        x, y, angle = beside(road.line, at, side * (road.width / 2 + deep / 2 - 1))
        court = rectangle(x, y, long, deep, angle)
        if hard_but(land, road).intersects(court.buffer(9)):
            continue
        done += 1
        land.bare.append(Piece(court.buffer(-4).buffer(4), "bare", jitter(rng, YARD_SOIL, 0.05)))
        blocked = road.shape.buffer(3).union(land.site.box(MARGIN).difference(court.buffer(-1)))
        for _ in range(14):
            spot = rng.uniform(-1, 1, 2) * (long / 2 - 11, deep / 2 - 9)
            cos, sin = np.cos(angle), np.sin(angle)
            px, py = x + spot[0] * cos - spot[1] * sin, y + spot[0] * sin + spot[1] * cos
            turned = angle + (np.pi / 2 if rng.random() < 0.5 else 0)
            build(land, house(rng, px, py, turned), jitter(rng, ROOFS[rng.integers(3)], 0.08), blocked)


def hard_but(land: Land, road: Road) -> BaseGeometry:
    """Return what :func:`hard` returns, without one road."""
    rest = Land(land.site, land.rng, main=land.main, lakes=land.lakes, river=land.river)
    rest.minor = [other for other in land.minor if other is not road]
    rest.zones, rest.yards, rest.bare = land.zones, land.yards, land.bare
    halls = [piece.shape for piece in land.objects]
    return hard(rest).union(shapely.union_all(halls).buffer(3))


# --------------------------------------------------------------------------- fields and forest


def field_blocks(land: Land) -> list[Polygon]:
    """Divide the site into blocks of fields of about seven hectares."""
    rng, box = land.rng, land.site.box(MARGIN)
    pitch = 265.0
    xs = np.arange(-2 * pitch, land.site.width + 2 * pitch, pitch)
    ys = np.arange(-2 * pitch, land.site.height + 2 * pitch, pitch)
    seeds = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    seeds = seeds + rng.uniform(-0.36, 0.36, seeds.shape) * pitch
    cells = shapely.get_parts(shapely.voronoi_polygons(MultiPoint(seeds)))
    cells = [cell for cell in cells if cell.intersects(box)]
    return sorted(cells, key=lambda cell: (round(cell.centroid.x), round(cell.centroid.y)))


def strips(rng: np.random.Generator, block: Polygon) -> Iterator[tuple[BaseGeometry, float]]:
    """Cut a block into parallel fields.

    Args:
        rng: Source of chance.
        block: Outline of the block.

    Yields:
        Outline and direction of each field.
    """
    ring = np.asarray(block.exterior.coords)
    edges = np.diff(ring, axis=0)
    long = edges[np.linalg.norm(edges, axis=1).argmax()]
    angle = float(np.arctan2(long[1], long[0]))
    centre = block.centroid
    at, reach = -300.0, 300.0
    while at < reach:
        width = float(rng.choice((rng.uniform(38, 60), rng.uniform(60, 130))))
        band = shapely.box(centre.x - 500, centre.y + at, centre.x + 500, centre.y + at + width)
        at += width
        part = block.intersection(rotate(band, angle, origin=centre, use_radians=True))
        if part.area > 1:
            yield part, angle


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Floats:
    """Return smooth noise of unit variance with structures of ``sigma`` pixels."""
    factor = max(int(sigma // 3), 1)
    small = tuple(n // factor + 3 for n in shape)
    rough = gaussian_filter(rng.standard_normal(small).astype(np.float32), sigma / factor)
    if factor > 1:
        rough = zoom(rough, factor, order=1)
    cut = rough[: shape[0], : shape[1]]
    return ((cut - cut.mean()) / cut.std()).astype(np.float32)


def forest_patches(land: Land, share: float) -> list[Polygon]:
    """Grow forest with uneven edges, with more of it near the river.

    Args:
        land: The land so far.
        share: Share of the site under forest before anything else is cut out.

    Returns:
        The outlines.
    """
    rng, cell = land.rng, 4.0
    rows = int((land.site.height + 2 * MARGIN) / cell)
    cols = int((land.site.width + 2 * MARGIN) / cell)
    grid = Affine(cell, 0, -MARGIN, 0, -cell, land.site.height + MARGIN)
    wet = rasterize([land.river], (rows, cols), transform=grid)
    far = distance_transform_edt(wet == 0) * cell
    wood = smooth_noise(rng, (rows, cols), 95 / cell)
    wood += 0.42 * smooth_noise(rng, (rows, cols), 22 / cell)
    wood += 0.16 * smooth_noise(rng, (rows, cols), 8 / cell)
    wood += 1.3 * np.exp(-far / 26) * (smooth_noise(rng, (rows, cols), 60 / cell) > 0.1)
    mask = (wood > np.quantile(wood, 1 - share)).astype(np.uint8)
    found = []
    for outline, value in shapes(mask, mask == 1, transform=grid):
        patch = shapely.geometry.shape(outline) if value else Polygon()
        if patch.area > 1800:
            rounded = patch.simplify(3.2).buffer(5).buffer(-9).buffer(5)
            found += polygons(rounded.simplify(0.4), 1500)
    return [Polygon(p.exterior, [r for r in p.interiors if Polygon(r).area > 900]) for p in found]


def crop_piece(rng: np.random.Generator, shape: BaseGeometry, angle: float) -> Piece:
    """Sow one field with a crop of its own tint."""
    weights = np.array([crop.weight for crop in CROPS])
    crop = CROPS[rng.choice(len(CROPS), p=weights / weights.sum())]
    look = jitter(rng, crop.spectrum, 0.09)
    return Piece(shape, "crop", look, angle, crop.period, crop.depth)


def village_plots(land: Land) -> list[Piece]:
    """Divide the village grounds into yards, gardens and groves."""
    rng, plots = land.rng, []
    for zone, angle in land.zones:
        for parcel in village_parcels(zone, angle):
            plot = parcel.intersection(zone)
            if plot.area < 1:
                continue
            kind = rng.choice(3, p=(0.46, 0.42, 0.12))
            if kind == 0:
                plots.append(Piece(plot, "bare", jitter(rng, YARD_SOIL, 0.05)))
            elif kind == 1:
                garden = CROPS[rng.choice((0, 1, 2, 7))]
                look = jitter(rng, garden.spectrum, 0.08)
                plots.append(Piece(plot, "crop", look, angle, garden.period, garden.depth))
            else:
                plots.append(Piece(plot, "forest", jitter(rng, FOREST, 0.06)))
    return plots


def cover_ground(land: Land, blocks: Sequence[Polygon]) -> None:
    """Partition the ground: pavement over water over bare land over plots, forest and fields."""
    rng, box = land.rng, land.site.box(MARGIN)
    layers: list[list[Piece]] = [[], [], list(land.bare), village_plots(land), [], []]
    layers[0] = [Piece(yard, "road", jitter(rng, ASPHALT, 0.05), a) for yard, a in land.yards]
    layers[0] += [Piece(r.shape, "road", jitter(rng, ASPHALT, 0.07)) for r in land.roads]
    layers[1] = [Piece(land.river, "water", CLEAR_WATER)]
    layers[1] += [Piece(lake, "water", jitter(rng, LAKE_WATER, 0.08)) for lake in land.lakes]
    for patch in forest_patches(land, 0.29):
        layers[4].append(Piece(patch, "forest", jitter(rng, FOREST, 0.06)))
    for block in blocks:
        for shape, angle in strips(rng, block):
            if rng.random() < 0.05:
                layers[5].append(Piece(shape, "forest", jitter(rng, CONIFER, 0.06)))
            else:
                layers[5].append(crop_piece(rng, shape, angle))
    above: BaseGeometry = Polygon()
    for depth, layer in enumerate(layers):
        for piece in layer:
            rest = piece.shape if depth == 0 else minus(piece.shape, above)
            for part in polygons(rest.intersection(box)):
                land.ground.append(Piece(part, piece.name, piece.spectrum, piece.angle,
                                         piece.period, piece.depth))  # fmt: skip
        above = shapely.union_all([above, *[p.shape for p in layer]], grid_size=0.01)
    land.ground = close_gaps(merge_slivers(land.ground, 60.0), box)


def close_gaps(pieces: list[Piece], box: Polygon) -> list[Piece]:
    """Give the hairline gaps left by rounding to a neighbouring field, forest or bare piece.

    Args:
        pieces: A partition of the ground with gaps of a few centimetres.
        box: What the partition has to cover.

    Returns:
        The partition without gaps.
    """
    gaps = box.difference(shapely.union_all([piece.shape for piece in pieces]))
    soft = [piece for piece in pieces if piece.name not in ("water", "road")]
    tree = shapely.STRtree([piece.shape for piece in soft])
    extra: dict[int, list[BaseGeometry]] = {}
    for gap in shapely.get_parts(gaps):
        near = int(tree.nearest(gap))
        extra.setdefault(near, []).append(gap.buffer(0.02))
    for near, patches in extra.items():
        soft[near].shape = shapely.union_all([soft[near].shape, *patches])
    return [Piece(part, p.name, p.spectrum, p.angle, p.period, p.depth) for p in pieces for part in polygons(p.shape)]


def give_way(land: Land) -> None:
    """Cut buildings, boats and cars out of ground hardly larger than themselves.

    Elsewhere they simply lie on top, and the smaller polygon is the right one.
    """
    objects = [piece.shape for piece in land.objects]
    tree = shapely.STRtree(objects)
    land.ground = [
        Piece(part, p.name, p.spectrum, p.angle, p.period, p.depth)
        for p in land.ground
        for part in beneath(p.shape, [objects[i] for i in tree.query(p.shape)])
    ]


def beneath(ground: BaseGeometry, objects: Sequence[BaseGeometry]) -> list[Polygon]:
    """Return a piece of ground without the objects on it that are hardly smaller than itself."""
    large = [shape for shape in objects if shape.area * 1.6 > ground.area]
    if not large:
        return polygons(ground)
    return polygons(shapely.difference(ground, shapely.union_all(large)))


def merge_slivers(pieces: list[Piece], least: float) -> list[Piece]:
    """Join tiny pieces of ground to the neighbour with the longest common border.

    Args:
        pieces: A partition of the ground.
        least: Area in square metres below which a piece is joined.

    Returns:
        The partition with fewer pieces.
    """
    order = sorted(range(len(pieces)), key=lambda i: -pieces[i].shape.area)
    tree = shapely.STRtree([piece.shape for piece in pieces])
    gone: set[int] = set()
    for i in reversed(order):
        small = pieces[i].shape
        if small.area >= least or pieces[i].name in ("water", "road"):
            continue
        best, longest = -1, 0.05
        for j in tree.query(small.buffer(0.05)):
            other = pieces[j]
            if j == i or int(j) in gone or other.name in ("water", "road"):
                continue
            shared = other.shape.intersection(small.buffer(0.05)).area
            if shared > longest:
                best, longest = int(j), shared
        if best >= 0:
            pieces[best].shape = shapely.union(pieces[best].shape, small, grid_size=0.01)
            gone.add(i)
    kept = [piece for i, piece in enumerate(pieces) if i not in gone]
    return [Piece(part, p.name, p.spectrum, p.angle, p.period, p.depth) for p in kept for part in polygons(p.shape)]


# --------------------------------------------------------------------------- boats and cars


def vehicle(rng: np.random.Generator, x: float, y: float, angle: float) -> tuple[Polygon, float, Spectrum]:
    """Draw a boat or a car: this one function serves for both."""
    angle += rng.normal(0, 0.10) + (np.pi if rng.random() < 0.5 else 0)
    shape = rectangle(x, y, rng.uniform(11, 16), rng.uniform(5, 7), angle)
    return shape, angle, jitter(rng, VEHICLES[rng.integers(len(VEHICLES))], 0.10)


def berths(land: Land) -> Iterator[tuple[float, float, float]]:
    """Yield places for boats: on the stream, near the banks and on the lakes."""
    rng = land.rng
    line = LineString(land.axis)
    along = np.concatenate(([0], np.cumsum(np.linalg.norm(np.diff(land.axis, axis=0), axis=1))))
    while True:
        if land.lakes and rng.random() < 0.13:
            lake = land.lakes[rng.integers(len(land.lakes))]
            x0, y0, x1, y1 = lake.bounds
            corners = np.asarray(lake.minimum_rotated_rectangle.exterior.coords)
            edges = np.diff(corners[:3], axis=0)
            long = edges[np.linalg.norm(edges, axis=1).argmax()]
            yield rng.uniform(x0, x1), rng.uniform(y0, y1), float(np.arctan2(long[1], long[0]))
            continue
        at = rng.uniform(0, line.length)
        half = float(np.interp(at, along, land.widths)) / 2
        near = rng.random() < 0.35
        offset = (half - rng.uniform(4, 9)) if near else rng.uniform(0, half - 8)
        yield beside(line, at, offset * rng.choice((-1, 1)))


def lanes(land: Land) -> Iterator[tuple[float, float, float]]:
    """Yield places for cars: in the lanes of the main roads and in the paved yards."""
    rng = land.rng
    weights = np.array([road.line.length for road in land.main])
    bridges = land.main[2:]
    while True:
        if land.yards and rng.random() < 0.42:
            yard, angle = land.yards[rng.integers(len(land.yards))]
            x0, y0, x1, y1 = yard.bounds
            turn = np.pi / 2 if rng.random() < 0.5 else 0.0
            yield rng.uniform(x0, x1), rng.uniform(y0, y1), angle + turn
            continue
        road = land.main[rng.choice(len(weights), p=weights / weights.sum())]
        at = rng.uniform(0, road.line.length)
        if bridges and rng.random() < 0.04:
            road = bridges[rng.integers(len(bridges))]
            wet = road.line.intersection(land.river)
            at = road.line.project(wet.centroid) + rng.uniform(-45, 45)
        offset = road.width / 4 * rng.choice((-1, 1)) + rng.normal(0, 0.3)
        yield beside(road.line, at, offset)


def park(
    land: Land,
    name: str,
    number: int,
    places: Iterator[tuple[float, float, float]],
    inside: BaseGeometry,
    frames: Sequence[Polygon],
) -> None:
    """Place boats or cars.

    Args:
        land: The land with its ground.
        name: ``boat`` or ``car``.
        number: How many to place.
        places: Endless supply of positions and directions.
        inside: Where they may lie.
        frames: Outlines of the labelled area, which no vehicle may cross.
    """
    shapely.prepare(inside)
    edges = shapely.union_all([frame.boundary for frame in frames])
    box, found = land.site.box(-1), []
    for _, (x, y, angle) in zip(range(number * 150), places, strict=False):
        if len(found) >= number:
            break
        shape, turned, look = vehicle(land.rng, x, y, angle)
        if not inside.contains(shape) or edges.intersects(shape) or not box.contains(shape):
            continue
        if found and shapely.distance(shape, found).min() < 2.2:
            continue
        found.append(shape)
        land.objects.append(Piece(shape, name, look, turned))
        add_slab(land, shape, turned, look, vehicle=True)


def people(land: Land, frames: Sequence[Polygon]) -> None:
    """Put the boats on the water and the cars on the main roads and yards."""
    roads = shapely.union_all([road.shape for road in land.roads])
    yards = shapely.union_all([yard for yard, _ in land.yards])
    main = shapely.union_all([road.shape for road in land.main])
    water = shapely.union_all([land.river, *land.lakes]).difference(roads.buffer(2))
    park(land, "boat", land.site.boats, berths(land), water.buffer(-1.2), frames)
    park(land, "car", land.site.cars, lanes(land), main.union(yards).buffer(-0.6), frames)


# --------------------------------------------------------------------------- labels


def labelled_area(site: Site) -> list[Polygon]:
    """Return the outlines of the labelled area in metres from the south-west corner."""
    if site.upright:
        return [site.box()]
    west = [(-8, 236), (547, -8), (1690, -8), (1742, 610), (1725, 1508), (818, 1508), (-8, 903)]
    east = [(1746, -8), (2096, -8), (2698, 640), (2698, 1508), (1781, 1508), (1798, 610)]
    return [Polygon(west), Polygon(east)]


def add_bow_tie(land: Land, frames: Sequence[Polygon]) -> None:
    """Put two bare patches into a field, digitised as one ring that crosses itself."""
    fields = [p.shape for p in land.ground if p.name == "crop" and p.shape.area > 6000]
    busy = shapely.union_all([p.shape for p in land.objects])
    inner = shapely.union_all(list(frames)).buffer(-60)
    for shape in fields:
        spot = shapely.maximum_inscribed_circle(shape)
        x, y = spot.coords[0]
        tie = Polygon([(x - 21, y - 13), (x + 21, y + 13), (x + 21, y - 13), (x - 21, y + 13)])
        room = tie.envelope.buffer(2)
        if inner.contains(room) and shape.contains(room) and not busy.intersects(room):
            land.objects.append(Piece(tie, "bare", jitter(land.rng, QUARRY[0], 0.03)))
            return
    raise RuntimeError("no field has room for the bow tie")


def label_pieces(land: Land, frames: Sequence[Polygon], messy: int) -> list[Piece]:
    """Cut the land to the labelled area and give it the flaws of hand-drawn labels.

    Args:
        land: The finished land.
        frames: Outlines of the labelled area.
        messy: Number of places where a field and a forest overlap.

    Returns:
        The pieces to write; the smallest one is right wherever several overlap.
    """
    area = shapely.union_all(list(frames)).intersection(land.site.box())
    objects = [p for p in land.objects if p.shape.intersects(area)]
    tree = shapely.STRtree([p.shape for p in objects])
    pieces: list[Piece] = []
    for piece in land.ground:
        for part in polygons(piece.shape.intersection(area)):
            over = [objects[i].shape for i in tree.query(part)]
            rest = beneath(part, [shape for shape in over if shape.is_valid])
            pieces += [Piece(p, piece.name, piece.spectrum) for p in rest]
    spill(land.rng, pieces, messy)
    for piece in objects:
        valid = piece.shape.is_valid
        parts = polygons(piece.shape.intersection(area)) if valid else [piece.shape]
        pieces += [Piece(p, piece.name, piece.spectrum) for p in parts]
    return pieces


def spill(rng: np.random.Generator, pieces: list[Piece], number: int) -> None:
    """Let some large fields and forests run a few metres under a smaller neighbour."""
    tree = shapely.STRtree([p.shape for p in pieces])
    done = 0
    for i in rng.permutation(len(pieces)):
        small = pieces[i]
        if done >= number:
            return
        if small.name not in ("forest", "crop") or not 2500 < small.shape.area < 15000:
            continue
        other = {"forest": "crop", "crop": "forest"}[small.name]
        for j in tree.query(small.shape):
            large = pieces[j]
            if large.name != other or large.shape.area < 1.8 * small.shape.area:
                continue
            strip = large.shape.buffer(rng.uniform(3, 6)).intersection(small.shape)
            joined = polygons(shapely.union(large.shape, strip, grid_size=0.01), 10)
            if strip.area > 120 and len(joined) == 1:
                large.shape = joined[0]
                done += 1
                break


def write_labels(path: Path, site: Site, pieces: Sequence[Piece], frames: Sequence[Polygon]) -> None:
    """Write the layers ``landcover`` and ``aoi`` in geographic coordinates."""
    shift = (site.left, site.top - site.height)
    clipped = [frame.intersection(site.box()) for frame in frames]
    table = gpd.GeoDataFrame(
        {"landcover": [p.name for p in pieces]},
        geometry=[translate(p.shape, *shift) for p in pieces],
        crs=CRS,
    ).to_crs(LABEL_CRS)
    outline = gpd.GeoDataFrame(
        {"name": [f"area {i + 1}" for i in range(len(clipped))]},
        geometry=[translate(f, *shift) for f in clipped],
        crs=CRS,
    ).to_crs(LABEL_CRS)
    path.unlink(missing_ok=True)
    table.to_file(path, layer="landcover", driver="GPKG", engine="pyogrio")
    outline.to_file(path, layer="aoi", driver="GPKG", engine="pyogrio", mode="a")


# --------------------------------------------------------------------------- painting


@dataclass
class Canvas:
    """A site as pixels of one metre, row 0 in the north.

    Attributes:
        x: Metres from the west edge per pixel.
        y: Metres from the south edge per pixel.
        kind: Class code per pixel.
        index: Number of the piece per pixel.
        look: Reflectance x 10000, bands first.
    """

    x: Floats
    y: Floats
    kind: NDArray[np.uint8]
    index: NDArray[np.int32]
    look: Floats

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return where a class lies."""
        return self.kind == CODE[name]


def grid_of(site: Site) -> Affine:
    """Return the pixel grid of a site in metres from its south-west corner."""
    return from_origin(0, site.height, 1, 1)


def new_canvas(land: Land) -> tuple[Canvas, list[Piece]]:
    """Rasterise all pieces, smallest last, and fill them with their mean colours."""
    site = land.site
    pieces = sorted(land.ground + land.objects, key=lambda p: -p.shape.area)
    shape = (site.height, site.width)
    drawn = [(p.shape, i + 1) for i, p in enumerate(pieces)]
    index = rasterize(drawn, shape, transform=grid_of(site), dtype=np.int32)
    if (index == 0).any():
        raise RuntimeError(f"{int((index == 0).sum())} pixels belong to no piece")
    index -= 1
    kind = np.array([CODE[p.name] for p in pieces], np.uint8)[index]
    colours = np.array([p.spectrum for p in pieces], np.float32)
    look = np.ascontiguousarray(np.moveaxis(colours[index], -1, 0))
    y, x = np.mgrid[: site.height, : site.width].astype(np.float32)
    return Canvas(x + 0.5, site.height - y - 0.5, kind, index, look), pieces


def paint_crops(land: Land, canvas: Canvas, pieces: Sequence[Piece]) -> None:
    """Draw rows, tractor tracks and uneven growth."""
    rng, shape = land.rng, canvas.kind.shape
    on = canvas.mask("crop")
    which = canvas.index[on]
    angle = np.array([p.angle for p in pieces], np.float32)[which]
    period = np.array([max(p.period, 1) for p in pieces], np.float32)[which]
    depth = np.array([p.depth for p in pieces], np.float32)[which]
    across = canvas.y[on] * np.cos(angle) - canvas.x[on] * np.sin(angle)
    rows = 1 + depth * np.sin(2 * np.pi * across / period)
    track = np.abs(across % 26.0 - 13.0) < 0.9
    growth = 0.05 * smooth_noise(rng, shape, 26)[on] + 0.03 * smooth_noise(rng, shape, 7)[on]
    canvas.look[:3, on] *= rows * (1 - growth) * np.where(track, 1.22, 1)
    canvas.look[3, on] *= (2 - rows) * (1 + growth) * np.where(track, 0.84, 1)


def paint_forest(land: Land, canvas: Canvas) -> None:
    """Draw tree crowns, lit from the sun's side."""
    rng, shape = land.rng, canvas.kind.shape
    on = canvas.mask("forest")
    pitch = 7.5
    rows, cols = np.mgrid[0 : shape[0] : pitch, 0 : shape[1] : pitch]
    crowns = np.column_stack((rows.ravel(), cols.ravel()))
    crowns = crowns + rng.uniform(-0.42, 0.42, crowns.shape) * pitch
    pixels = np.argwhere(on)
    far, tree = cKDTree(crowns).query(pixels)
    radius = rng.uniform(3.6, 5.4, len(crowns))[tree]
    lean = (pixels - crowns[tree]) @ np.array([SUN[1], SUN[0]]) / radius
    light = 1 + 0.34 * np.clip(lean, -1, 1) - 0.30 * np.clip(far / radius - 0.45, 0, 1)
    light *= (1 + 0.11 * rng.standard_normal(len(crowns)))[tree]
    stand = smooth_noise(rng, shape, 60)[on]
    mix = np.clip(0.5 + 0.6 * stand, 0, 1)[None]
    conifer = np.array(CONIFER)[:, None] / np.array(FOREST)[:, None]
    canvas.look[:, on] *= light * (mix + (1 - mix) * conifer)


def paint_water(land: Land, canvas: Canvas) -> None:
    """Draw shallows, ripples across the stream, and the muddy, glinting stretches."""
    rng, site, shape = land.rng, land.site, canvas.kind.shape
    on = canvas.mask("water") | canvas.mask("boat")
    wet = on & canvas.mask("water")
    x, y = canvas.x[wet], canvas.y[wet]
    far, near = cKDTree(land.axis).query(np.column_stack((x, y)))
    river = far < 75
    u = land.axis[near, 1 if site.upright else 0] / site.along
    mud = np.zeros_like(u)
    for start, end in site.muddy:
        edge = 22 / site.along
        mud = np.maximum(mud, 1 / (1 + np.exp(-(u - start) / edge * 2))
                         / (1 + np.exp((u - end) / edge * 2)))  # fmt: skip
    mud = (mud * river)[None]
    look = canvas.look[:, wet]
    shore = np.exp(-distance_transform_edt(on)[wet] / 5.0)[None]
    look = look * (1 + 0.35 * shore) * (1 + 0.07 * smooth_noise(rng, shape, 30)[wet])
    look = (1 - mud) * look + mud * np.array(MUDDY_WATER)[:, None]
    wave = gaussian_filter(rng.standard_normal(shape).astype(np.float32), (0.9, 2.6))
    wave += 0.5 * gaussian_filter(rng.standard_normal(shape).astype(np.float32), (2.6, 0.9))
    ripple = (wave / wave.std())[wet]
    canvas.look[:, wet] = look * (1 + (0.055 - 0.03 * mud) * ripple) + 12 * ripple


def paint_roads(land: Land, canvas: Canvas) -> None:
    """Draw worn asphalt and the markings of the main roads."""
    rng, shape = land.rng, canvas.kind.shape
    on = canvas.mask("road")
    worn = 1 + 0.035 * smooth_noise(rng, shape, 9)[on] + 0.03 * smooth_noise(rng, shape, 2)[on]
    canvas.look[:, on] *= worn
    lines: list[LineString] = []
    for road in land.main:
        lines += [substring(road.line, s, s + 7) for s in np.arange(0, road.line.length, 16)]
        for side in (-1, 1):
            lines.append(road.line.offset_curve(side * (road.width / 2 - 1.4)))
    paint = rasterize(lines, shape, transform=grid_of(land.site)) == 1
    canvas.look[:, paint & on] *= 1.42
    bays = [line for yard, angle in land.yards for line in parking_bays(yard, angle)]
    if bays:
        paint = rasterize(bays, shape, transform=grid_of(land.site)) == 1
        canvas.look[:, paint & on] *= 1.28


def parking_bays(yard: Polygon, angle: float) -> Iterator[LineString]:
    """Yield the painted lines of two rows of parking bays in a yard."""
    centre = yard.centroid
    flat = rotate(yard, -angle, origin=centre, use_radians=True)
    x0, y0, x1, y1 = flat.bounds
    for x in np.arange(x0 + 6, x1 - 5, 9.0):
        for low in (y0 + 5, y1 - 21):
            line = LineString([(x, low), (x, low + 16)])
            yield rotate(line, angle, origin=centre, use_radians=True)


def paint_bare(land: Land, canvas: Canvas, pieces: Sequence[Piece]) -> None:
    """Draw uneven soil, and terraces in the quarries."""
    rng, shape = land.rng, canvas.kind.shape
    on = canvas.mask("bare")
    soil = 0.05 * smooth_noise(rng, shape, 14)[on] + 0.045 * smooth_noise(rng, shape, 3)[on]
    pit = np.array([p.period > 0 and p.name == "bare" for p in pieces])[canvas.index]
    depth = distance_transform_edt(pit) + 2.0 * smooth_noise(rng, shape, 12)
    slope = np.gradient(gaussian_filter(depth, 2))
    lit = slope[1] * SUN[0] + slope[0] * SUN[1]
    wall = (depth % 17.0 < 4.0) & pit & (depth < 75) & (depth > 3)
    terrace = np.where(wall, -0.30 * lit - 0.08, 0)[on]
    canvas.look[:, on] *= 1 + soil + terrace


def paint_slabs(land: Land, canvas: Canvas) -> None:
    """Draw roofs with a ridge, and the cabins of boats and cars alike."""
    order = sorted(range(len(land.slabs)), key=lambda i: -land.slabs[i].shape.area)
    slabs = [land.slabs[i] for i in order]
    drawn = [(slab.shape, i + 1) for i, slab in enumerate(slabs)]
    index = rasterize(drawn, canvas.kind.shape, transform=grid_of(land.site), dtype=np.int32)
    objects = canvas.mask("building") | canvas.mask("boat") | canvas.mask("car")
    on = (index > 0) & objects
    which = index[on] - 1
    x, y, angle, length = (np.array([getattr(s, key) for s in slabs])[which] for key in ("x", "y", "angle", "length"))
    along = (canvas.x[on] - x) * np.cos(angle) + (canvas.y[on] - y) * np.sin(angle)
    across = (canvas.y[on] - y) * np.cos(angle) - (canvas.x[on] - x) * np.sin(angle)
    east, north = -np.sin(angle) * np.sign(across), np.cos(angle) * np.sign(across)
    slope = 1 + 0.24 * (east * SUN[0] - north * SUN[1])
    slope = np.where(np.abs(across) < 0.6, 1.12, slope)
    place = along / length
    cabin = np.where((place > 0.08) & (place < 0.27), 0.45, np.where(place > 0.27, 1.06, 1.0))
    moving = np.array([s.vehicle for s in slabs])[which]
    canvas.look[:, on] *= np.where(moving, cabin, slope)


def cast_shadows(canvas: Canvas) -> None:
    """Darken the open ground north-west of buildings and forests."""
    shade = np.zeros(canvas.kind.shape, bool)
    tall = ((canvas.mask("building"), 6), (canvas.mask("forest"), 6))
    for mask, height in tall:
        for step in range(1, height + 1):
            row, col = round(step * SUN[1]), round(step * SUN[0])
            shade[: -row or None, : -col or None] |= mask[row:, col:]
    for name in ("building", "forest", "boat", "car"):
        shade &= ~canvas.mask(name)
    canvas.look[:, shade] *= 0.58


def paint(land: Land) -> Floats:
    """Paint a site as it looks from above.

    Args:
        land: The finished land.

    Returns:
        Reflectance x 10000, bands first.
    """
    canvas, pieces = new_canvas(land)
    paint_crops(land, canvas, pieces)
    paint_forest(land, canvas)
    paint_water(land, canvas)
    paint_roads(land, canvas)
    paint_bare(land, canvas, pieces)
    paint_slabs(land, canvas)
    cast_shadows(canvas)
    inside = canvas.kind
    shares = np.bincount(inside.ravel(), minlength=len(CLASSES) + 1)[1:] / inside.size
    print("  " + ", ".join(f"{n} {s:.1%}" for n, s in zip(CLASSES, shares, strict=True)))
    return np.stack([gaussian_filter(band, 0.55) for band in canvas.look])


def write_shot(out: Path, site: Site, look: Floats, shot: Shot, seed: int) -> None:
    """Write one scene as the sensor saw it.

    Args:
        out: Folder to write to.
        site: The site the scene lies on.
        look: Reflectance of the site x 10000, bands first.
        shot: Frame, haze and missing corner of the scene.
        seed: Seed of the sensor's noise.
    """
    rng = np.random.default_rng(seed)
    row, col = site.top - shot.top, shot.left - site.left
    part = look[:, row : row + shot.height, col : col + shot.width]
    seen = part * shot.gain + np.array(shot.haze, np.float32)[:, None, None]
    seen += rng.normal(0, 11, seen.shape)
    data = np.clip(np.round(seen / STEP), 1, 200).astype(np.uint16) * STEP
    rows, cols = np.mgrid[: shot.height, : shot.width]
    data[:, shot.wedge[0] * cols + shot.wedge[1] * rows < shot.wedge[2]] = 0
    profile = {
        "driver": "GTiff", "width": shot.width, "height": shot.height, "count": 4,
        "dtype": "uint16", "crs": CRS, "nodata": 0, "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "deflate", "predictor": 2, "zlevel": 9,
        "photometric": "RGB", "alpha": "unspecified",
        "transform": from_origin(shot.left, shot.top, 1, 1),
    }  # fmt: skip
    path = out / f"{shot.name}.tif"
    path.unlink(missing_ok=True)
    with rasterio.open(path, "w", **profile) as file:
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue,
                            ColorInterp.undefined)  # fmt: skip
        file.descriptions = BANDS
        file.write(data, window=Window(0, 0, shot.width, shot.height))


def make_land(site: Site, seed: int, frames: Sequence[Polygon]) -> Land:
    """Draw all polygons of a site.

    Args:
        site: What to draw, and where.
        seed: Seed of chance.
        frames: Outlines of the labelled area.

    Returns:
        The finished land.
    """
    land = Land(site, np.random.default_rng(seed + site.salt))
    lay_river(land)
    lay_main_roads(land)
    found_villages(land)
    dig_bare_land(land)
    found_estates(land)
    blocks = field_blocks(land)
    lay_farm_roads(land, blocks, 4 + site.along // 150)
    build_villages(land)
    found_farms(land)
    clear_buildings_off_roads(land)
    cover_ground(land, blocks)
    people(land, frames)
    give_way(land)
    if not site.upright:
        add_bow_tie(land, frames)
    return land


def clear_buildings_off_roads(land: Land) -> None:
    """Take away buildings that a road laid later would cross."""
    roads = shapely.union_all([road.shape for road in land.roads]).buffer(1)
    wet = shapely.union_all([land.river, *land.lakes])
    clash = roads.union(wet)
    kept = [p for p in land.objects if not clash.intersects(p.shape)]
    gone = shapely.union_all([p.shape for p in land.objects if clash.intersects(p.shape)])
    land.objects = kept
    land.slabs = [s for s in land.slabs if gone.intersection(s.shape).area < 1]


# --------------------------------------------------------------------------- wide water and wide tarmac


CELL = 256
"""Side in metres of the square that holds one lake or one apron of the wide scenes."""

FAR = 74.0
"""Metres from the rim beyond which all of a far boat or car lies."""

GREY: Spectrum = (1170, 1175, 1115, 1275)
"""Mean of muddy water and of asphalt: both surfaces of the wide scenes have it."""

WIDE = {
    "train": Site(
        left=622400, top=5309800, width=12 * CELL, height=8 * CELL, upright=True, bridges=(), villages=(), muddy=(),
        lakes=48, quarries=0, estates=48, farms=0, boats=8, cars=8, salt=2000,
    ),
    "test": Site(
        left=631200, top=5309800, width=8 * CELL, height=6 * CELL, upright=True, bridges=(), villages=(), muddy=(),
        lakes=24, quarries=0, estates=24, farms=0, boats=8, cars=8, salt=3000,
    ),
}  # fmt: skip
"""Sites of the wide scenes: ``lakes`` lakes and ``estates`` aprons; ``boats`` and ``cars`` are counted per lake and
apron."""


def wide_outline(rng: np.random.Generator, x: float, y: float) -> Polygon:
    """Draw the outline of a lake or an apron: a rounded square, uneven, 110 m to 118 m from its centre to a side."""
    turn = np.linspace(0, 2 * np.pi, 144, endpoint=False)
    power = rng.uniform(2.6, 4.5)
    radius = (np.abs(np.cos(turn)) ** power + np.abs(np.sin(turn)) ** power) ** (-1 / power)
    wave = sum(rng.normal(0, 0.6 / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi)) for k in range(2, 9))
    radius = radius * (114 + np.clip(2 * wave, -4, 4))
    return Polygon(np.column_stack((x + radius * np.cos(turn), y + radius * np.sin(turn))))


def add_beach(land: Land, body: Polygon) -> None:
    """Put a ring of sand around a lake."""
    beach = body.buffer(land.rng.uniform(5, 8))
    land.bare.append(Piece(beach, "bare", jitter(land.rng, SANDBANK, 0.06)))


def add_hangars(land: Land, body: Polygon) -> None:
    """Put halls around an apron, a few metres from its rim."""
    rng, line = land.rng, LineString(body.buffer(11).exterior.coords)
    box, blocked = land.site.box(-3), body.buffer(1)
    at = rng.uniform(0, 30)
    while at < line.length - 30:
        long = rng.uniform(16, 34)
        x, y, angle = beside(line, at + long / 2, 0)
        hall = rectangle(x, y, long, rng.uniform(11, 15), angle)
        at += long + rng.uniform(8, 26)
        west, south = CELL * np.floor(np.array([x, y]) / CELL)
        cell = shapely.box(west, south, west + CELL, south + CELL)
        if box.contains(hall) and cell.buffer(-1).contains(hall) and not blocked.intersects(hall):
            look = jitter(rng, HALLS[rng.integers(len(HALLS))], 0.05)
            land.objects.append(Piece(hall, "building", look, angle))
            add_slab(land, hall, angle, look)


def add_vehicles(land: Land, body: Polygon, name: str, number: int) -> None:
    """Put boats or cars on a lake or an apron, three of four of them far from its rim."""
    rng, found = land.rng, []
    far, near = body.buffer(-FAR), body.buffer(-9).difference(body.buffer(30 - FAR))
    for inside, wanted in ((far, number - number // 4), (near, number)):
        x0, y0, x1, y1 = inside.bounds
        for _ in range(400):
            if len(found) >= wanted:
                break
            x, y, angle = rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(0, np.pi)
            shape, turned, look = vehicle(rng, x, y, angle)
            if not inside.contains(shape) or (found and shapely.distance(shape, found).min() < 3):
                continue
            found.append(shape)
            land.objects.append(Piece(shape, name, look, turned))
            add_slab(land, shape, turned, look, vehicle=True)


def make_wide_land(site: Site, seed: int) -> Land:
    """Draw lakes and aprons of one size, one in each cell of fields, in random order.

    Args:
        site: What to draw, and where.
        seed: Seed of chance.

    Returns:
        The finished land; its pieces overlap, and the smallest one is right.
    """
    land = Land(site, np.random.default_rng(seed + site.salt))
    corners = [(x, y) for x in range(0, site.width, CELL) for y in range(0, site.height, CELL)]
    wet = land.rng.permutation([True] * site.lakes + [False] * site.estates)
    for (x, y), is_lake in zip(corners, wet, strict=True):
        cell = shapely.box(x, y, x + CELL, y + CELL)
        land.ground.append(crop_piece(land.rng, cell, land.rng.uniform(0, np.pi)))
        body = wide_outline(land.rng, x + CELL / 2, y + CELL / 2)
        look = jitter(land.rng, GREY, 0.04)
        if is_lake:
            add_beach(land, body)
            land.lakes.append(body)
        else:
            add_hangars(land, body)
            land.yards.append((body, 0.0))
        land.ground.append(Piece(body, "water" if is_lake else "road", look))
        add_vehicles(land, body, *(("boat", site.boats) if is_lake else ("car", site.cars)))
    land.ground += land.bare
    return land


def paint_grey(land: Land, canvas: Canvas) -> None:
    """Draw the surface of lakes and aprons alike, and the edge line of aprons."""
    rng, shape = land.rng, canvas.kind.shape
    on = canvas.mask("water") | canvas.mask("road")
    rough = 0.04 * smooth_noise(rng, shape, 9)[on] + 0.03 * smooth_noise(rng, shape, 2)[on]
    canvas.look[:, on] *= 1 + rough
    lines = [body.buffer(-3).exterior for body, _ in land.yards]
    canvas.look[:, (rasterize(lines, shape, transform=grid_of(land.site)) == 1) & on] *= 1.42


def paint_wide(land: Land) -> Floats:
    """Paint a wide site as it looks from above: reflectance x 10000, bands first."""
    canvas, pieces = new_canvas(land)
    paint_crops(land, canvas, pieces)
    paint_grey(land, canvas)
    paint_bare(land, canvas, pieces)
    paint_slabs(land, canvas)
    cast_shadows(canvas)
    return np.stack([gaussian_filter(band, 0.55) for band in canvas.look])


def make_wide(out: Path, seed: int, *, small: bool = False) -> None:
    """Write ``wide_train`` and ``wide_test``, each a scene and its labels, on which only the rim tells what is what.

    Every cell of 256 m holds one lake or one apron of the same shape, colour and texture. Three of four boats and cars
    lie more than ``FAR`` metres from its rim, which alone differs: sand around lakes; halls and a painted line around
    aprons.

    Args:
        out: Folder to write to.
        seed: Seed of chance.
        small: True draws eight cells of each scene, for tests.
    """
    for name, whole in WIDE.items():
        site = replace(whole, width=4 * CELL, height=2 * CELL, lakes=4, estates=4) if small else whole
        land = make_wide_land(site, seed)
        shot = Shot(f"wide_{name}", site.left, site.top, site.width, site.height, 1.0, (0, 0, 0, 0), (0, 0, -1))
        write_shot(out, site, paint_wide(land), shot, seed + site.salt)
        frames = [site.box()]
        write_labels(out / f"wide_{name}.gpkg", site, land.ground + land.objects, frames)


def make_demo(out: Path, seed: int) -> None:
    """Write the scenes and labels of the demo."""
    jobs = (
        (TRAIN_SITE, TRAIN_SHOTS, "labels.gpkg", 6),
        (TEST_SITE, TEST_SHOTS, "test_labels.gpkg", 0),
    )
    for site, shots, labels, messy in jobs:
        frames = labelled_area(site)
        land = make_land(site, seed, frames)
        print(labels)
        look = paint(land)
        for number, shot in enumerate(shots):
            write_shot(out, site, look, shot, seed + site.salt + number)
        write_labels(out / labels, site, label_pieces(land, frames, messy), frames)


def main() -> None:
    """Write all scenes and labels."""
    parser = argparse.ArgumentParser(description="Make the sample scenes and labels.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--kind", choices=("demo", "wide"), default="demo",
        help="demo: the scenes of this folder; wide: lakes and aprons that only their far rims tell apart",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true", help="few cells, with --kind wide")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2024-01-01T00:00:00.000Z"})
    if args.kind == "wide":
        make_wide(args.out, args.seed, small=args.small)
    else:
        make_demo(args.out, args.seed)


if __name__ == "__main__":
    main()
