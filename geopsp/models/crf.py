"""Options of the fully connected CRF, which moves the borders of classes to edges of the image.

Each pixel has the network's probabilities as its unary term, and two kernels link it to its neighbours: smoothness, a
Gaussian of the distance, and appearance, which is also a Gaussian of the difference of the bands. Both end at a radius
(a convolutional CRF), so that after a fixed number of iterations of mean-field inference a pixel depends on a fixed
neighbourhood, the halo.

Source: Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (2011);
Teichmann and Cipolla, "Convolutional CRFs for semantic segmentation" (2018), for the radius.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from geopsp.core.options import check_fields, describes_itself, option
from geopsp.errors import OptionError

SETTING = "crf"
"""Where the settings of a model hold the parameters that `fit_crf` found."""

MAX_HALO = 512
"""Pixels around a part that are computed for it, at most."""

NEIGHBOURS, MAX_NEIGHBOURS = 6, 20
"""Neighbours of the appearance kernel on each side if the dilation is not given, 13 x 13 in all, and the most."""

SMOOTHNESS_RADIUS, APPEARANCE_RADIUS = 3, 2
"""Radius of the kernels in sigmas, if it is not given."""

FITTED = "None: as fitted by `fit_crf`, else {}."


@describes_itself
@dataclass(frozen=True, slots=True)
class CRFOptions:
    """Parameters of the CRF; those that are None are the model's own if `fit_crf` found some, else defaults.

    Args:
        {options}

    Raises:
        OptionError: if one is out of range.
    """

    appearance_weight: float | None = option(
        None,
        "Weight of the appearance kernel: the most that neighbours of similar colour add to a class, in logits. "
        + FITTED.format(4),
        minimum=0,
        maximum=50,
        flag="--crf-appearance-weight",
    )
    appearance_sigma: float | None = option(
        None,
        "Standard deviation of the appearance kernel on the ground. " + FITTED.format(4),
        above=0,
        maximum=500,
        unit="pixels",
        flag="--crf-appearance-sigma",
    )
    color_sigma: float | None = option(
        None,
        "Standard deviation of the appearance kernel in colour: the root mean square difference of the bands, each "
        "divided by its standard deviation in the training images. " + FITTED.format(0.3),
        above=0,
        maximum=1000,
        flag="--crf-color-sigma",
    )
    smoothness_weight: float | None = option(
        None,
        "Weight of the smoothness kernel: the most that neighbours of any colour add to a class, in logits. "
        + FITTED.format(1),
        minimum=0,
        maximum=50,
        flag="--crf-smoothness-weight",
    )
    smoothness_sigma: float | None = option(
        None,
        "Standard deviation of the smoothness kernel. " + FITTED.format(1),
        above=0,
        maximum=300,
        unit="pixels",
        flag="--crf-smoothness-sigma",
    )
    iterations: int | None = option(
        None,
        "Iterations of mean-field inference. " + FITTED.format(5),
        minimum=1,
        maximum=100,
        flag="--crf-iterations",
    )
    radius: int | None = option(
        None,
        "Radius of both kernels, which are 0 beyond it. Radius times iterations may be 512 at most. None: 2 sigmas of "
        "appearance, 3 of smoothness.",
        minimum=1,
        maximum=MAX_HALO,
        unit="pixels",
        flag="--crf-radius",
    )
    dilation: int | None = option(
        None,
        "Distance of the neighbours that the appearance kernel takes: 1 takes all. None: as leaves at most 13 x 13 of "
        "them.",
        minimum=1,
        maximum=MAX_HALO,
        unit="pixels",
        flag="",
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class CRFParameters:
    """All that mean-field inference depends on; `halo` is how far a pixel is influenced.

    Raises:
        OptionError: if the halo is too large, or the dilation leaves the appearance kernel no neighbour.
    """

    appearance_weight: float = 4.0
    appearance_sigma: float = 4.0
    color_sigma: float = 0.3
    smoothness_weight: float = 1.0
    smoothness_sigma: float = 1.0
    iterations: int = 5
    radius: int | None = None
    dilation: int | None = None

    def __post_init__(self) -> None:
        radius = self._radius(self.appearance_sigma, APPEARANCE_RADIUS)
        if self.appearance_weight and self.spacing > radius:
            raise OptionError(
                f"`dilation` is {self.dilation}, but the appearance kernel ends at {radius} pixels, so it would have "
                "no neighbours. Give a smaller `dilation`, or a larger `radius`."
            )
        if self.appearance_radius // self.spacing > MAX_NEIGHBOURS:
            raise OptionError(
                f"`dilation` is {self.dilation}, which gives the appearance kernel {radius // self.spacing} neighbours "
                f"on each side of a pixel, but it may have at most {MAX_NEIGHBOURS}. Give a larger `dilation`."
            )
        if self.halo > MAX_HALO:
            raise OptionError(
                f"The CRF's radius of {self.reach} pixels times {self.iterations} iterations is {self.halo} pixels, "
                f"but may be at most {MAX_HALO}. Give a smaller `radius` or sigma, or fewer `iterations`."
            )

    @property
    def appearance_radius(self) -> int:
        """Distance of the outermost neighbours of the appearance kernel, along an axis; 0: it has no weight."""
        return self.spacing * (self._radius(self.appearance_sigma, APPEARANCE_RADIUS) // self.spacing) * self._appears

    @property
    def spacing(self) -> int:
        """Distance of the neighbours of the appearance kernel."""
        return self.dilation or -(-self._radius(self.appearance_sigma, APPEARANCE_RADIUS) // NEIGHBOURS)

    @property
    def smoothness_radius(self) -> int:
        """Radius of the smoothness kernel; 0: it has no weight."""
        return self._radius(self.smoothness_sigma, SMOOTHNESS_RADIUS) * bool(self.smoothness_weight)

    @property
    def _appears(self) -> bool:
        return bool(self.appearance_weight)

    def _radius(self, sigma: float, times: int) -> int:
        return self.radius or math.ceil(times * sigma)

    @property
    def reach(self) -> int:
        """Pixels from which one iteration takes messages."""
        return max(self.appearance_radius, self.smoothness_radius)

    @property
    def halo(self) -> int:
        """Pixels around a window on which the result in it depends."""
        return self.reach * self.iterations

    def offsets(self) -> list[tuple[int, int]]:
        """Return (rows, columns) to half of the neighbours of the appearance kernel; the others are opposite."""
        steps = range(-self.appearance_radius, self.appearance_radius + 1, self.spacing)
        return [(down, across) for down in steps for across in steps if (down, across) > (0, 0)]

    def taps(self) -> list[float]:
        """Return the smoothness kernel along an axis from its centre outwards; it is the same on both sides."""
        return [math.exp(-((d / self.smoothness_sigma) ** 2) / 2) for d in range(self.smoothness_radius + 1)]

    def bytes_per_pixel(self, classes: int, bands: int) -> int:
        """Return the memory that mean-field inference takes for each pixel."""
        return 4 * (len(self.offsets()) + 5 * classes + bands + 3)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def crf_parameters(crf: bool | CRFOptions, settings: Mapping[str, Any]) -> CRFParameters | None:
    """Return the parameters that a map is made with; None without a CRF.

    Args:
        crf: As the user gave it.
        settings: Of the model; they hold what `fit_crf` found.

    Raises:
        OptionError: if the options make too large a halo.
    """
    if crf is False:
        return None
    given = CRFOptions() if crf is True else crf
    return replace(_fitted(settings), **given.given)


def _fitted(settings: Mapping[str, Any]) -> CRFParameters:
    """Return the parameters in the settings of a model, or the defaults.

    Raises:
        OptionError: if they are not those of a CRF.
    """
    found = settings.get(SETTING, {})
    known = {entry.name for entry in fields(CRFParameters)}
    saved = {name: value for name, value in found.items() if name in known} if isinstance(found, Mapping) else {}
    try:
        return CRFParameters(**CRFOptions(**saved).given)
    except OptionError as error:
        raise OptionError(
            f"The model's own parameters of the CRF cannot be used: {error} Give `crf` options."
        ) from None
