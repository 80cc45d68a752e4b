"""Where the maps of a call go, and all that is made with them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geopsp.errors import OptionError
from geopsp.legend import Legend
from geopsp.maps.products import ProbabilityType, Product, classes, probabilities, share
from geopsp.rasters import RASTER_ENDINGS
from geopsp.scene import Scene

BESIDE = ("polygons", "probabilities", "confidence", "disagreement")


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the map of one scene goes, and all that is made with it; or folders of those of many."""

    out: Path
    polygons: Path | None = None
    probabilities: Path | None = None
    confidence: Path | None = None
    disagreement: Path | None = None
    probability_type: ProbabilityType = "uint8"

    @classmethod
    def of(cls, out: str | Path, options: Mapping[str, Any]) -> Targets:
        """As asked for.

        Raises:
            OptionError: if probabilities cannot be stored so.
        """
        kind = options.get("probability_type", "uint8")
        if kind not in ("uint8", "float16"):
            raise OptionError(f"probability_type is {kind!r}; needed uint8 or float16.")
        given = {name: Path(place) for name in BESIDE if (place := options.get(name)) is not None}
        return cls(Path(out), **given, probability_type=kind)

    @property
    def places(self) -> list[Path]:
        """All files."""
        return [self.out, *(place for name in BESIDE if (place := getattr(self, name)) is not None)]

    def of_image(self, name: str) -> Targets:
        """The files of one image in these folders."""
        files = {its: f"{name}.gpkg" if its == "polygons" else f"{name}.tif" for its in BESIDE}
        inside = {its: folder / files[its] for its in BESIDE if (folder := getattr(self, its)) is not None}
        return replace(self, out=self.out / f"{name}.tif", **inside)

    def products(self, legend: Legend) -> tuple[Product, ...]:
        """The rasters, the classes first."""
        found = [classes(self.out, legend)]
        if self.probabilities is not None:
            found.append(probabilities(self.probabilities, legend, self.probability_type))
        found += [share(name, place) for name in ("confidence", "disagreement") if (place := getattr(self, name))]
        return tuple(found)


def image_names(scenes: Sequence[Scene]) -> list[str]:
    """What the map of each scene is called: like its image, where several are called so with the folder before it."""
    paths = [Path(scene.layers[0].name.partition("?")[0]) for scene in scenes]
    names = [path.stem if path.suffix.lower() in RASTER_ENDINGS else path.name for path in paths]
    seen = Counter(names)
    full = [
        name if seen[name] == 1 else f"{path.resolve().parent.name}_{name}"
        for name, path in zip(names, paths, strict=True)
    ]
    return [re.sub(r"[^\w.+-]+", "_", name).strip("_") for name in full]


def check_places(places: Sequence[Path], scenes: Sequence[Scene]) -> None:
    """Raises OptionError if a file would be written twice, or over an image."""
    twice = [place for place, count in Counter(place.resolve() for place in places).items() if count > 1]
    if twice:
        raise OptionError(
            f"Two outputs have the same name: {twice[0]}. Give each its own; of images with one name, map some apart."
        )
    inputs = {Path(source.path).resolve() for scene in scenes for source in scene.sources}
    for place in places:
        if place.resolve() in inputs:
            raise OptionError(f"{place} is an image to be mapped; it would be lost. Give the output another name.")
