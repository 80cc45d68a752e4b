"""Options of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from geopsp.core.argument_names import did_you_mean_one, require_known
from geopsp.core.options import check_fields, option, require_number
from geopsp.errors import OptionError

if TYPE_CHECKING:
    from geopsp.core.legend import Legend

AVERAGES = ("micro", "macro")

BOUNDARY_WEIGHT = 2.0


BALANCING_POWER = 0.5
"""Least `class_weight_power` under class balancing."""


CLASS_WEIGHT_POWER = 0.3


ADDED = {"boundary_weight": 0.0, "class_weight_power": 0.0}
"""Options that earlier versions lacked, with the values that have no effect."""


def as_names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names or ())


@dataclass(frozen=True, slots=True)
class LossSpec:
    """The loss: cross entropy, and what is added to it.

    Raises:
        OptionError: if an option is out of range, or the fractions add up to more than 1.
    """

    class_balancing: bool = option(
        False, f"Weight rare classes up further: `class_weight_power` is at least {BALANCING_POWER:g}."
    )
    focal_loss: bool = option(False, "Focal loss: weight pixels that are hard to classify up, by (1 - p)^2.")
    dice_loss_fraction: float = option(
        0.0,
        "Weight of the Dice loss in the total; what the three fractions leave is cross entropy.",
        minimum=0,
        maximum=1,
        flag="--dice",
        shell_help="Weight of the Dice loss in the total, 0 to 1.",
    )
    dice_loss_average: str = option(
        "micro",
        "Dice loss over all classes together (micro), or its mean over the classes present (macro).",
        choices=AVERAGES,
        flag="",
    )
    lovasz_fraction: float = option(
        0.0,
        "Weight of the Lovasz-softmax loss in the total.",
        minimum=0,
        maximum=1,
        flag="--lovasz",
        shell_help="Weight of the Lovasz loss in the total, 0 to 1.",
    )
    tversky_fraction: float = option(
        0.0,
        "Weight of the Tversky loss in the total.",
        minimum=0,
        maximum=1,
        flag="--tversky",
        shell_help="Weight of the Tversky loss in the total, 0 to 1.",
    )
    tversky_alpha: float = option(
        0.3,
        "Weight of false positives in the Tversky loss. 0.3 and 0.7 as in Salehi et al. (2017).",
        minimum=0,
        flag="",
    )
    tversky_beta: float = option(0.7, "Weight of false negatives in the Tversky loss.", minimum=0, flag="")
    label_smoothing: float = option(
        0.0, "Fraction of each pixel's label that is spread evenly over all classes.", minimum=0, maximum=1
    )
    ohem: float = option(
        1.0,
        "Online hard example mining: the fraction of the labelled pixels, the hardest ones, that count in the cross "
        "entropy.",
        above=0,
        maximum=1,
    )
    mixup: bool = option(False, "Train on blends of two chips (mixup).")
    ignore_classes: tuple[str, ...] = option(
        (), "Names of classes whose pixels count as unlabelled, in training and scores of this model."
    )
    aux_weight: float = 0.4
    """Weight of the auxiliary head. Source: Zhao et al. (2017), table 2."""

    boundary_weight: float = option(
        BOUNDARY_WEIGHT,
        "What pixels at most 2 rows and columns from another class count more than others in the cross entropy: with 2 "
        "they count 3 times. 0: all count the same.",
        minimum=0,
        maximum=100,
    )
    class_weight_power: float = option(
        CLASS_WEIGHT_POWER,
        "Weight rare classes up in the loss: a class of n pixels weighs 1 / n ** power, at most 10 times another. 0: "
        "all classes weigh the same; 1: as if all had the same number of pixels.",
        minimum=0,
        maximum=1,
        shell_help="Weight rare classes up in the loss: a class of N pixels weighs 1 / N^power, at most 10 times "
        "another. 0: all classes weigh the same.",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        require_number("aux_weight", self.aux_weight, minimum=0)
        if not self.tversky_alpha + self.tversky_beta > 0:
            raise OptionError("`tversky_alpha` and `tversky_beta` are both 0, but one of them must be above 0.")
        if self.entropy_fraction < 0:
            raise OptionError(
                f"`dice_loss_fraction` ({self.dice_loss_fraction:g}), `lovasz_fraction` ({self.lovasz_fraction:g}) and "
                f"`tversky_fraction` ({self.tversky_fraction:g}) add up to {1 - self.entropy_fraction:g}, but at most "
                "1 is allowed. Lower one."
            )

    @property
    def balancing(self) -> float:
        """Power by which rare classes are weighted up."""
        return max(self.class_weight_power, BALANCING_POWER if self.class_balancing else 0.0)

    @property
    def entropy_fraction(self) -> float:
        """Weight of the cross entropy: what the other losses leave."""
        left = math.fsum((1, -self.dice_loss_fraction, -self.lovasz_fraction, -self.tversky_fraction))
        return 0.0 if abs(left) < 1e-9 else left  # fractions such as 0.6, 0.3 and 0.1 are not exact

    def ignored(self, legend: Legend) -> list[int]:
        """Return the channel indices of the classes to ignore."""
        return [legend.names.index(name) for name in self.ignore_classes]

    def for_legend(self, legend: Legend) -> LossSpec:
        """Return this loss, if the legend has the classes to ignore and at least two others.

        Raises:
            OptionError: if it has not.
        """
        unknown = [name for name in self.ignore_classes if name not in legend.names]
        if unknown or len(set(self.ignore_classes)) > len(legend) - 2:
            raise OptionError(
                f"`ignore_classes` is {', '.join(map(str, self.ignore_classes))}, but the classes are "
                f"{', '.join(legend.names)}, of which at least two must remain."
                f"{did_you_mean_one(unknown, legend.names)}"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON has them; without those of `ADDED` that are 0, as in earlier versions."""
        entries = {**asdict(self), "ignore_classes": list(self.ignore_classes)}
        return {name: value for name, value in entries.items() if value or name not in ADDED}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LossSpec:
        """Return the saved loss; options that did not exist yet have no effect.

        Raises:
            OptionError: if it has unknown options.
        """
        known = {entry.name: entry.default for entry in fields(cls)}
        try:
            require_known(row, known, "The loss")
        except OptionError as error:
            raise OptionError(f"{error} A newer geopsp may have saved the model: update.") from error
        switches = {name: bool(value) for name, value in row.items() if isinstance(known[name], bool)}
        return cls(**{**ADDED, **row, **switches, "ignore_classes": tuple(row.get("ignore_classes", ()))})
