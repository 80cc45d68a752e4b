"""Options of `suggest_chips`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from geopsp.core.argument_names import require_known
from geopsp.core.options import check_fields, option, option_fields
from geopsp.errors import OptionError
from geopsp.inference.options import PRECISION_HELP, EngineName, MapOptions, Precision
from geopsp.polygons.options import PolygonSettings, PolygonSettingsDict

if TYPE_CHECKING:
    import geopandas as gpd

Criterion = Literal["entropy", "margin"]

WEIGHTS = ("uncertainty_weight", "disagreement_weight", "novelty_weight", "rarity_weight")


@dataclass(frozen=True, slots=True)
class SuggestOptions:
    """All options of `suggest_chips`.

    Raises:
        OptionError: if one is out of range, or all weights are 0.
    """

    number: int = option(50, "Windows to suggest.", minimum=1, unit="windows")
    labelled: str | Path | gpd.GeoDataFrame | None = option(
        None,
        "What is labelled already, to be left out: a chip folder, whose chips also say what the model has seen, or "
        "polygons (FILE or FILE|layername=LAYER). None: nothing.",
    )
    criterion: Criterion = option(
        "entropy",
        "Measure of the model's uncertainty: entropy of the class probabilities, or margin between the two largest.",
        choices=get_args(Criterion),
    )
    uncertainty_weight: float = option(1.0, "Weight of the model's uncertainty in the score.", minimum=0)
    disagreement_weight: float = option(
        0.5,
        "Weight of the disagreement between the predictions of shifted and mirrored tiles in the score. 0: off; "
        "shifted tiles are then not computed either.",
        minimum=0,
    )
    novelty_weight: float = option(
        1.0,
        "Weight of the distance, in features of the network, from what is labelled or chosen already in the score.",
        minimum=0,
    )
    rarity_weight: float = option(0.5, "Weight of the rarity of the predicted classes in the score.", minimum=0)
    symmetries: int = option(
        2,
        "Flips and rotations of each tile that are predicted, the tile itself included; each takes as long as a map.",
        choices=(1, 2, 4, 8),
    )
    tile_size: int | None = option(
        None,
        "Side of a window, a multiple of 32. None: as in training. Cut chips of the same size afterwards.",
        minimum=32,
        unit="pixels",
        flag="--size",
    )
    stride: int | None = option(
        None,
        "Distance from one window to the next. None: the size of a window, which is the grid that chips are cut on.",
        minimum=1,
        unit="pixels",
    )
    min_valid: float = option(0.5, "Leave out windows with a smaller fraction of valid pixels.", minimum=0, maximum=1)
    max_labelled: float = option(0.0, "Leave out windows of which a larger fraction is `labelled`.", minimum=0, below=1)
    min_distance: float = option(
        0.0, "Distance between the centres of suggested windows at least. They never overlap.", minimum=0, unit="metres"
    )
    max_per_km2: float | None = option(
        None,
        "Suggested windows in any circle of 1 km2 around one of them at most; below 1, the circle is larger, and holds "
        "one. None: no limit.",
        above=0,
    )
    seed: int = option(42, "Random seed; decides between equal scores.", minimum=0)
    polygon_options: PolygonSettingsDict | None = option(
        None,
        "How the polygons to correct are made: a dict of options of `raster_to_polygons` from `connectivity` to "
        "`regularize`. None: their defaults.",
        flag="",
    )
    bands: Sequence[str | int] | None = option(
        None, "The bands of the images, in the model's order, by name or number from 1. None: by the model's names."
    )
    aoi: str | Path | gpd.GeoDataFrame | None = option(
        None, "Area of interest: polygons (FILE or FILE|layername=LAYER) to search in. None: all."
    )
    cell_size: float | None = option(
        None, "Resample the images to this pixel size. None: as they are.", above=0, unit="CRS units"
    )
    allow_resolution_mismatch: bool = option(
        False, "Take images whose pixels are more than 4 times larger or smaller than those of the training, too."
    )
    batch_size: int | None = option(None, "Tiles per batch. None: as many as fit into memory.", minimum=1, unit="tiles")
    precision: Precision = option(
        "auto",
        PRECISION_HELP,
        choices=get_args(Precision),
    )
    device: str | None = option(
        None, 'Device as torch names it, e.g. "cpu" or "cuda:1". None: the first GPU, else the CPU.'
    )
    engine: EngineName = option(
        "auto",
        "What runs the network: torch (PyTorch) or onnx (ONNX Runtime, on the CPU; it gives no features for "
        "`novelty_weight`). auto: onnx for an .onnx file, else torch.",
        choices=get_args(EngineName),
    )
    overwrite: bool = option(False, "Replace an output that exists.")

    def __post_init__(self) -> None:
        check_fields(self)
        if not any(getattr(self, name) for name in WEIGHTS):
            raise OptionError(f"{', '.join(f'`{name}`' for name in WEIGHTS)} are all 0. Give one of them a weight.")
        given: Any = {} if self.polygon_options is None else self.polygon_options
        if not isinstance(given, Mapping):
            raise OptionError(f"`polygon_options` is {given!r}, but must be a dict of options of raster_to_polygons.")
        require_known(given, option_fields(PolygonSettings), "`polygon_options`")
        PolygonSettings(**given)
        self.map_options  # noqa: B018 (checks the bands)

    @property
    def polygon_settings(self) -> PolygonSettings:
        """How polygons are made."""
        return PolygonSettings(**(self.polygon_options or {}))

    @property
    def map_options(self) -> MapOptions:
        """How the images are opened and classified, as for a map of each image."""
        names = ("tile_size", "batch_size", "precision", "bands", "aoi", "cell_size", "allow_resolution_mismatch")
        more: dict[str, Any] = {name: getattr(self, name) for name in (*names, "device", "engine")}
        return MapOptions(padding=0, per_image=True, **more)

    @property
    def uses_views(self) -> bool:
        """True if each tile is predicted in several views."""
        return self.disagreement_weight > 0
