"""Spectral bands by name: which band of pretrained weights is which band of the input.

Names are a sensor's own (B02, B8A, SR_B4), common names as in STAC (blue, nir08, swir16), or others, which match
themselves alone. Source: STAC extension "eo", common names; ESA's and USGS's lists of bands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SENTINEL1, SENTINEL2 = "Sentinel-1", "Sentinel-2"
LANDSAT, TM, ETM, OLI = "Landsat", "Landsat 4-5 TM", "Landsat 7 ETM+", "Landsat 8-9 OLI/TIRS"

SENSORS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    SENTINEL1: {"VV": ("vv",), "VH": ("vh",)},
    SENTINEL2: {
        "B01": ("coastal",), "B02": ("blue",), "B03": ("green",), "B04": ("red",), "B05": ("rededge1",),
        "B06": ("rededge2",), "B07": ("rededge3",), "B08": ("nir",), "B8A": ("nir08",), "B09": ("nir09",),
        "B10": ("cirrus",), "B11": ("swir16",), "B12": ("swir22",),
    },
    TM: {
        "B1": ("blue",), "B2": ("green",), "B3": ("red",), "B4": ("nir", "nir08"), "B5": ("swir16",), "B6": ("lwir",),
        "B7": ("swir22",),
    },
    ETM: {
        "B1": ("blue",), "B2": ("green",), "B3": ("red",), "B4": ("nir", "nir08"), "B5": ("swir16",),
        "B6_VCID_1": ("lwir",), "B6_VCID_2": (), "B7": ("swir22",), "B8": ("pan",),
    },
    OLI: {
        "B1": ("coastal",), "B2": ("blue",), "B3": ("green",), "B4": ("red",), "B5": ("nir08", "nir"),
        "B6": ("swir16",), "B7": ("swir22",), "B8": ("pan",), "B9": ("cirrus",), "B10": ("lwir11", "lwir"),
        "B11": ("lwir12",),
    },
}  # fmt: skip
"""Bands of each sensor in their order, with the common names of each; the first is the nearest."""


SYNONYMS = {
    "aerosol": "coastal", "coastalaerosol": "coastal", "nir8": "nir08", "nir8a": "nir08", "narrownir": "nir08",
    "nirnarrow": "nir08", "nir9": "nir09", "panchromatic": "pan", "rededge": "rededge1", "rededge071": "rededge1",
    "rededge075": "rededge2", "rededge078": "rededge3", "swir1": "swir16", "swir2": "swir22", "thermal": "lwir",
    "tir": "lwir", "tirs1": "lwir11", "tirs2": "lwir12", "watervapor": "nir09", "watervapour": "nir09",
}  # fmt: skip
"""Other names, of lower-case letters and digits alone, and the common name that they mean."""


NUMBERED = re.compile(r"(?P<product>(?:sr|st|toa)_)?b0*(?P<number>[1-9]\d?a?)(?P<gain>_vcid_\d)?", re.IGNORECASE)


def match_spectral_bands(wanted: Sequence[str], given: Sequence[str], sensor: str = "") -> tuple[int | None, ...]:
    """Return for each wanted band its position among the given ones; None: it is not there. None is taken twice.

    Numbers mean what they mean for their sensor: B5 is red edge for Sentinel-2, and near or short-wave infrared for
    Landsat. The sensor of the wanted bands is known by names that only one has (B8A, B12, SR_B6), and else taken to be
    that of the given ones.

    Args:
        wanted: Names of the input's bands.
        given: Names of the bands of the weights.
        sensor: Of the given bands, one of `SENSORS`; "": as their names tell.
    """
    given_sensor = sensor or _sensor_of(given)
    wanted_sensor = _sensor_of(wanted) or given_sensor
    same = wanted_sensor == given_sensor or (wanted_sensor == LANDSAT and given_sensor.startswith(LANDSAT))
    names = [_names(name, given_sensor if same else wanted_sensor, with_number=same)[: 1 + same] for name in wanted]
    ranked = [_names(name, given_sensor, with_number=same) for name in given]
    found: dict[int, int] = {}
    for rank in range(max(map(len, ranked), default=0)):
        for position, choices in enumerate(ranked):
            if rank < len(choices) and position not in found.values():
                free = (i for i in range(len(wanted)) if i not in found and choices[rank] in names[i])
                if (match := next(free, None)) is not None:
                    found[match] = position
    return tuple(found.get(i) for i in range(len(wanted)))


def rgb_bands(names: Sequence[str]) -> tuple[int, int, int]:
    """Return the bands to show as red, green and blue, by their names; else the first three, or one as grey."""
    red, green, blue = match_spectral_bands(("red", "green", "blue"), names)
    if red is not None and green is not None and blue is not None:
        return red, green, blue
    return (0, 1, 2) if len(names) > 2 else (0, 0, 0)


def _sensor_of(names: Sequence[str]) -> str:
    """Return the only sensor that has bands of such names; `LANDSAT`: one of its sensors; "": any."""
    found = [match for name in names if (match := NUMBERED.fullmatch(name.strip().upper()))]
    numbers = {match["number"] for match in found}
    if numbers & {"8A", "12"}:
        return SENTINEL2
    if any(match["gain"] for match in found):
        return ETM
    if any(match["product"] == "SR_" and match["number"] == "6" for match in found):
        return OLI
    return LANDSAT if any(match["product"] in {"SR_", "ST_"} for match in found) else ""


def _names(name: str, sensor: str, *, with_number: bool) -> list[str]:
    """Return what a band is called, the nearest name first: its number, then its common names."""
    match = NUMBERED.fullmatch(name.strip())
    if match is None:
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        return [SYNONYMS.get(plain, plain) or name]
    number = _number(match)
    known = {_number(NUMBERED.fullmatch(own)): words for own, words in SENSORS.get(sensor, {}).items()}
    return [*([number] if with_number else []), *known.get(number, ())]


def _number(match: re.Match[str] | None) -> str:
    return f"b{match['number']}{match['gain'] or ''}".lower() if match else ""
