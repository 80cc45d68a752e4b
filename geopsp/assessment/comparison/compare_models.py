"""Compare two models on the same labelled chips: whether one is better, or the difference is noise."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from geopsp.assessment.comparison.cluster_mcnemar import cluster_mcnemar, holm
from geopsp.assessment.comparison.comparison_options import ComparisonOptions
from geopsp.assessment.comparison.model_comparison import ACCURACY, ALL_CLASSES, MEAN_IOU, ModelComparison
from geopsp.assessment.comparison.paired_counts import PairedCounts, count_pairs
from geopsp.assessment.joint_classes import JointClasses, MapClasses, join_classes
from geopsp.chips.chip_set import ChipSet
from geopsp.core.addresses import shown
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import describes, from_names, require_path
from geopsp.core.progress import LOG_SECONDS, progress_bar
from geopsp.core.text import format_count
from geopsp.core.warnings_log import collect_warnings
from geopsp.data.ground_blocks import GroundBlocks, ground_blocks
from geopsp.errors import ChipError, ModelError
from geopsp.models.onnx_file import is_onnx
from geopsp.models.training_area import known_area
from geopsp.training.block_bootstrap import difference_intervals, scores

if TYPE_CHECKING:
    from geopsp.models.saved_model import TrainedModel
    from geopsp.training.chip_predictions import ChipPrediction
    from geopsp.training.classifier import PixelClassifier
    from geopsp.training.estimate_scoring import ScoringCost

logger = logging.getLogger(__name__)

FEW_BLOCKS = 10
"""Blocks below which intervals are not to be trusted."""


@describes(ComparisonOptions)
def compare_models(
    model_a: str | Path | PixelClassifier,
    model_b: str | Path | PixelClassifier,
    chips: str | Path | Sequence[str | Path] | ChipSet,
    *,
    class_mapping: Mapping[Any, Any] | str | Path | None = None,
    block_size: float | None = None,
    resamples: int = 2000,
    interval: str = "bca",
    confidence_level: float = 0.95,
    seed: int = 0,
    device: str | None = None,
    allow_resolution_mismatch: bool = False,
) -> ModelComparison:
    """Score two models on the same labelled pixels, and say whether one is better or the difference is noise.

    Both models see the same chips, as in `PixelClassifier.evaluate`; they may differ in bands, tile size, pixel size
    and classes, which are matched by name. All scores are those of the pooled confusion matrix. Mean IoU is over the
    classes that the labels have, for both models the same.

    Neighbouring pixels and chips resemble each other, so they are no independent evidence. Chips are therefore grouped
    into blocks of ground, and whole blocks are resampled with replacement (bootstrap): the interval of the difference
    B - A tells what other ground of the same kind could have given. One model is called better only if the interval of
    the difference in mean IoU leaves out 0. McNemar's test, for each class and for all, takes blocks as clusters
    (Obuchowski 1998); taking pixels as independent would find nearly every difference significant.

    Args:
        model_a: The folder of a saved model, its name on the Hugging Face Hub (hf://OWNER/NAME), or a classifier.
        model_b: The other.
        chips: A chip folder, several, or a chip set: ground that neither model was trained on.
        {options}

    Raises:
        OptionError: if an option is out of range, or `class_mapping` fits no class.
        InputNotFoundError, PackageError: if a folder does not hold a complete model.
        ModelError: if a model is an ONNX file, or the device cannot be used.
        BandError, ChipError, GridError: if the chips have other bands than a model needs, pixels of another size, are
            smaller than its tiles or have no labels.
    """
    options = from_names(ComparisonOptions, locals())
    with collect_warnings() as warnings:
        chip_set = chips if isinstance(chips, ChipSet) else ChipSet.open(chips)
        named = [_open_model(name, each) for name, each in (("model_a", model_a), ("model_b", model_b))]
        rows = _labelled_rows(chip_set)
        for name, model in named:
            _warn_of_training_area(name, model, chip_set, rows)
        models = [model for _, model in named]
        classes = _join(chip_set, named, options)
        blocks = ground_blocks(chip_set, rows, options.block_size)
        if blocks.warning:
            logger.warning(blocks.warning)
        names = [_chip_name(chip_set, row) for row in rows.tolist()]
        ignored = _ignored(classes, models)
        counts = count_pairs(classes, names, blocks.numbers, ignored, _predictions(models, chip_set, rows, options))
        if not counts.used_blocks.size:
            raise ChipError(
                "No labelled pixel of the chips is of a class that is compared, so there is nothing to score. Check "
                "`class_mapping`, and the classes that the models ignore."
            )
        _warn_of_few_blocks(counts, blocks)
    return _result(counts, blocks, [name for name, _ in named], options, tuple(warnings))


def comparison_cost(
    model_a: str | Path, model_b: str | Path, chips: Sequence[str | Path], options: ComparisonOptions
) -> tuple[ScoringCost, ScoringCost]:
    """Return what `compare_models` would cost with each model, after the same checks.

    Raises:
        GeopspError: as `compare_models`.
    """
    from geopsp.training.chip_predictions import predict_chips
    from geopsp.training.estimate_scoring import estimate_scoring

    chip_set = ChipSet.open(list(chips))
    named = [_open_model(name, each) for name, each in (("model_a", model_a), ("model_b", model_b))]
    rows = _labelled_rows(chip_set)
    _join(chip_set, named, options)
    ground_blocks(chip_set, rows, options.block_size)
    mismatch = options.allow_resolution_mismatch
    for _, model in named:
        predict_chips(model, chip_set, rows, device=options.device, allow_resolution_mismatch=mismatch)  # its checks
    one, other = (estimate_scoring(model, chip_set, options.device) for _, model in named)
    return one, other


def _labelled_rows(chips: ChipSet) -> NDArray[np.intp]:
    """Return the rows of the index with labels.

    Raises:
        ChipError: if there are none.
    """
    rows: NDArray[np.intp] = (chips.index["labelled"].to_numpy() > 0).nonzero()[0]
    if not len(rows):
        raise ChipError("The chips have no labelled pixels, so there is nothing to score. Choose other chips.")
    return rows


def _open_model(argument: str, given: Any) -> tuple[str, TrainedModel]:
    """Return a model with its name in messages."""
    if hasattr(given, "model") and not isinstance(given, str | Path):
        return f"`{argument}`", given.model
    require_path(argument, given)
    if is_onnx(given):
        raise ModelError(
            f"{given} is an ONNX file, but models are compared as they were saved. Give the folder of the saved model."
        )
    from geopsp.models.saved_model import load_model

    return shown(given), load_model(given)


def _join(chips: ChipSet, named: Sequence[tuple[str, TrainedModel]], options: ComparisonOptions) -> JointClasses:
    """Match the classes of chips and models by name; classes of the chips that a model lacks are said."""
    owners = [_by_channel("the chips", chips.legend), *(_by_channel(name, model.legend) for name, model in named)]
    classes = join_classes(*owners, mapping=options.class_mapping)
    of_chips, *of_models = (set(table.tolist()) - {IGNORE_INDEX} for table in classes.tables)
    for (name, _), known in zip(named, of_models, strict=True):
        lacking = [classes.names[number] for number in sorted(of_chips - known)]
        if len(lacking) == len(of_chips):
            raise ChipError(
                f"{name} knows none of the classes of the chips ({', '.join(lacking)}). Map its classes to them with "
                "`class_mapping`."
            )
        if lacking:
            logger.warning(
                f"{name} does not know the {format_count(len(lacking), 'class', 'classes').split(' ', 1)[1]} "
                f"{', '.join(lacking)} of the chips: it has all such pixels wrong. Merge classes with `class_mapping` "
                "if the models map different schemes."
            )
    return classes


def _by_channel(name: str, legend: Legend) -> MapClasses:
    """Return the classes of a legend with their channel indices as codes."""
    return MapClasses(name, tuple(replace(info, code=number) for number, info in enumerate(legend)))


def _ignored(classes: JointClasses, models: Sequence[TrainedModel]) -> NDArray[np.bool_]:
    """Return (256,) True for joint classes whose labels do not count, as a model was trained to ignore them."""
    found = np.zeros(256, bool)
    for table, model in zip(classes.tables[1:], models, strict=True):
        found[table[model.losses.ignored(model.legend)]] = True
    found[IGNORE_INDEX] = False
    if found.any():
        names = [classes.names[number] for number in np.flatnonzero(found)]
        logger.warning(f"A model was trained to ignore {', '.join(names)}: such pixels count as unlabelled.")
    return found


def _predictions(
    models: Sequence[TrainedModel], chips: ChipSet, rows: NDArray[np.intp], options: ComparisonOptions
) -> Iterator[tuple[ChipPrediction, ChipPrediction]]:
    """Yield the predictions of both models, chip by chip, and show progress."""
    from geopsp.training.chip_predictions import predict_chips

    one, other = (
        predict_chips(
            model, chips, rows, device=options.device, allow_resolution_mismatch=options.allow_resolution_mismatch
        )
        for model in models
    )

    def pairs() -> Iterator[tuple[ChipPrediction, ChipPrediction]]:
        with progress_bar("Scoring both models", gap=LOG_SECONDS, unit="chips") as progress:
            for done, pair in enumerate(zip(one, other, strict=True), 1):
                yield pair
                progress(done, len(rows))

    return pairs()


def _chip_name(chips: ChipSet, row: int) -> str:
    entry = chips.index.iloc[row]
    return str(entry["image"]) if "image" in chips.index else f"{entry['source']}, chip {row}"


def _warn_of_training_area(name: str, model: TrainedModel, chips: ChipSet, rows: NDArray[np.intp]) -> None:
    """Warn of chips within the hull of the ground that a model was trained on, as far as it tells."""
    area = known_area(model.settings)
    index = chips.index.iloc[rows]
    if "geometry" not in area or index.crs is None:
        return
    found = index.geometry[index.geometry.notna()].to_crs(4326)
    inside = int(shapely.intersects(shapely.centroid(found.to_numpy()), shape(area["geometry"])).sum())
    if inside:
        logger.warning(
            f"{inside:,} of {format_count(len(rows), 'chip')} lie on ground between the training chips of {name}: if "
            "it was trained on them, its scores are too good. Compare on chips that neither model has seen."
        )


def _warn_of_few_blocks(counts: PairedCounts, blocks: GroundBlocks) -> None:
    number = counts.used_blocks.size
    if number < FEW_BLOCKS:
        logger.warning(
            f"The chips make only {format_count(number, 'block')} ({blocks.words}): intervals of fewer than "
            f"{FEW_BLOCKS} are not to be trusted. Label more ground, or lower `block_size` if errors there do not "
            "depend on each other."
        )


def _result(
    counts: PairedCounts, blocks: GroundBlocks, names: list[str], options: ComparisonOptions, warnings: tuple[str, ...]
) -> ModelComparison:
    pairs, classes = counts.pairs(), counts.classes.names
    intervals = difference_intervals(
        pairs, resamples=options.resamples, confidence_level=options.confidence_level, interval=options.interval,
        rng=np.random.default_rng(options.seed),
    )  # fmt: skip
    pooled = [each.sum(axis=0) for each in counts.confusions]
    first, second = (scores(each.astype(float)) for each in pooled)
    index = pd.Index([MEAN_IOU, ACCURACY, *(f"IoU {name}" for name in classes)], name="score")
    table = pd.DataFrame(
        {"model_a": first, "model_b": second, "difference": intervals[:, 0], "lower": intervals[:, 1],
         "upper": intervals[:, 2]}, index=index,
    )  # fmt: skip
    return ModelComparison(
        model_a=names[0],
        model_b=names[1],
        scores=table[table["difference"].notna()],
        mcnemar=_mcnemar(counts),
        chips=counts.chips,
        classes=classes,
        confusion_a=pooled[0],
        confusion_b=pooled[1],
        num_blocks=len(pairs),
        block_words=blocks.words,
        block_size=blocks.block_size,
        interval=options.interval,
        resamples=options.resamples,
        confidence_level=options.confidence_level,
        seed=options.seed,
        warnings=warnings,
    )


def _mcnemar(counts: PairedCounts) -> pd.DataFrame:
    """Return the tests of each class that a label or prediction has, and of all classes."""
    only = counts.only_one[counts.used_blocks]
    occurs = sum(each.sum(axis=(0, 1))[:-1] + each.sum(axis=(0, 2)) for each in counts.confusions) > 0
    chosen = [*np.flatnonzero(occurs), len(occurs)]
    tests = [cluster_mcnemar(only[:, number, 0], only[:, number, 1]) for number in chosen]
    p_values = np.array([p for _, p in tests])
    return pd.DataFrame(
        {
            "only_a_right": only.sum(axis=0)[chosen, 0],
            "only_b_right": only.sum(axis=0)[chosen, 1],
            "statistic": [statistic for statistic, _ in tests],
            "p_value": p_values,
            "p_holm": np.append(holm(p_values[:-1]), p_values[-1]),
        },
        index=pd.Index([*(counts.classes.names[number] for number in chosen[:-1]), ALL_CLASSES], name="class"),
    )
