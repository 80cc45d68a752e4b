"""write_report, and the method `report` of classifiers: the HTML report of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from geopsp.chips.chip_set import ChipSet
from geopsp.core.addresses import OutputPath, local_path, shown
from geopsp.core.file_endings import require_ending
from geopsp.core.options import require_path
from geopsp.core.output import atomic_output, check_output
from geopsp.core.owned_files import foreign_files, require_not_inputs, write_file_list
from geopsp.core.remote_output import upload_folder
from geopsp.errors import OptionError
from geopsp.model_report.map_panel import read_map_panel
from geopsp.model_report.report_page import ModelReport, report_page
from geopsp.models.hub_model import local_model
from geopsp.models.manifest import MANIFEST, MODEL_FOLDER, REPORT, read_manifest
from geopsp.models.model_info import read_model_info
from geopsp.models.onnx_file import is_onnx
from geopsp.models.training_record import ChipScores, read_record, read_run_config
from geopsp.raster.find_images import Images

if TYPE_CHECKING:
    from geopsp.models.saved_model import TrainedModel
    from geopsp.training.estimate_scoring import ScoringCost
    from geopsp.training.metrics import Confusion
    from geopsp.training.training_data import TrainingData

Chips = str | Path | Sequence[str | Path] | ChipSet

ENDINGS = (".html", ".htm")


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    data: TrainingData | None
    device: str | None


def report(
    classifier: Classifier,
    path: str | Path = REPORT,
    *,
    chips: Chips | None = None,
    map: str | Path | None = None,  # noqa: A002 (the word of the shell)
    images: Images | None = None,
    allow_resolution_mismatch: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the report of the model as one HTML file, and return its path. It needs no network.

    Args:
        classifier: Trained, or loaded.
        path: The file to write.
        chips: Labelled chips to score, best of ground that the model has not seen. None: the scores on the validation
            chips are shown.
        map: A map that the model made, to look at beside `images`.
        images: What the map was made of.
        allow_resolution_mismatch: True also scores chips whose pixels are more than 4 times larger or smaller.
        overwrite: True replaces the file.

    Raises:
        OptionError: if the file is no HTML file, or images are given without a map.
        BandError, ChipError, GridError: if the chips have other bands, classes or pixels of another size.
        InputNotFoundError, RasterError: if the map or the images cannot be read.
        OutputError: if the file exists and `overwrite` is False, or cannot be written.
    """
    return write_report(
        classifier, path, chips=chips, map=map, images=images, device=classifier.device,
        allow_resolution_mismatch=allow_resolution_mismatch, overwrite=overwrite,
    )  # fmt: skip


def write_report(
    model: str | Path | TrainedModel | Classifier,
    path: str | Path = REPORT,
    *,
    chips: Chips | None = None,
    map: str | Path | None = None,  # noqa: A002 (the word of the shell)
    images: Images | None = None,
    device: str | None = None,
    allow_resolution_mismatch: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the report of a model as one HTML file, and return its path. It needs no network.

    What it tells of the training comes from the model's folder; PyTorch is needed only to score `chips`.

    Args:
        model: A saved model, or a model in memory.
        path: The file to write.
        chips: As for `PixelClassifier.report`, like the following.
        map: A map that the model made.
        images: What the map was made of.
        device: Device of the scores, as PyTorch names it. None: the first GPU, else the CPU.
        allow_resolution_mismatch: True also scores chips whose pixels are more than 4 times larger or smaller.
        overwrite: True replaces the file.

    Raises:
        InputNotFoundError, PackageError: if the folder does not hold a complete model.
        OptionError, BandError, ChipError, GridError, RasterError, OutputError: as `PixelClassifier.report`.
    """
    require_path("path", path)
    check_report(model, path, chips=chips, map=map, images=images, overwrite=overwrite)
    found = _opened(model)
    panel = None if map is None else read_map_panel(map, images, found["model"].legend)
    test = None
    if chips is not None:
        _, test = score_test_chips(model, chips, device, allow_resolution_mismatch=allow_resolution_mismatch)
    return _write(ModelReport(**found, test=test, panel=panel), path, overwrite=overwrite)


def write_score_report(
    model: str | Path, path: str | Path, scores: ChipScores, *,
    map: str | Path | None = None,  # noqa: A002 (the word of the shell)
    images: Images | None = None, overwrite: bool,
) -> Path:  # fmt: skip
    """Write the report of a saved model with scores of chips that were scored already, and return its path.

    Raises:
        OutputError: if the file exists and `overwrite` is False, or cannot be written.
    """
    found = _opened(model)
    panel = None if map is None else read_map_panel(map, images, found["model"].legend)
    return _write(ModelReport(**found, test=scores, panel=panel), path, overwrite=overwrite)


def check_report_path(path: str | Path, *, overwrite: bool) -> None:
    """Check the file of a report before the work.

    Raises:
        OptionError: if it is no HTML file.
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    require_ending(path, *ENDINGS, usual=ENDINGS[:1])
    check_output(path, overwrite=overwrite)


def _write(content: ModelReport, path: str | Path, *, overwrite: bool) -> Path:
    page = report_page(content)
    folder = local_path(path).parent
    is_ours = (folder / MANIFEST).is_file() and not foreign_files(folder, MODEL_FOLDER)
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(page, encoding="utf-8")
    if is_ours:  # a report in the folder of a model is one of its files, so that the folder can be replaced
        write_file_list(folder, MODEL_FOLDER)
        upload_folder(folder, MODEL_FOLDER)
    return OutputPath(path)


def check_report(
    model: Any, path: str | Path, *, chips: Chips | None, map: str | Path | None,  # noqa: A002 (the word of the shell)
    images: Images | None, overwrite: bool,
) -> None:  # fmt: skip
    """Check what can be checked of the arguments of `write_report` before chips are scored.

    Raises:
        OptionError: if the file is no HTML file, images are given without a map, or the model is an ONNX file.
        OutputError: if the file is an input, exists and `overwrite` is False, or cannot be written.
    """
    if images is not None and map is None:
        raise OptionError("`images` are shown beside a map only. Give `map`, too, or leave `images` out.")
    if isinstance(model, str | Path) and is_onnx(model):
        raise OptionError(
            f"{model} is an ONNX file, which tells nothing of its training. Give the saved model's folder."
        )
    check_report_path(path, overwrite=overwrite)
    named = [each for each in (map, images, chips) if isinstance(each, str | Path)]
    require_not_inputs([Path(path)], [Path(each) for each in named])


def _opened(model: str | Path | TrainedModel | Classifier) -> dict[str, Any]:
    """Return what a report tells of a model, by the names of `ModelReport`."""
    if isinstance(model, str | Path):
        folder = local_model(model)
        manifest, record = read_manifest(folder), read_record(folder)
        made_with: Mapping[str, Any] = manifest.get("made_with") or {}
        versions = record.versions if record else {str(name): str(text) for name, text in made_with.items()}
        return {
            "name": Path(model).name or str(model), "folder": shown(model), "model": read_model_info(folder),
            "record": record, "run_config": read_run_config(folder), "versions": versions,
        }  # fmt: skip
    trained = _trained(model)
    if trained is not model:
        _score_if_needed(model)
    return {
        "name": str(trained.settings.get("network", "model")), "model": trained, "record": trained.record,
        "run_config": trained.run_config, "versions": trained.record.versions if trained.record else {},
    }  # fmt: skip


def _trained(model: Any) -> TrainedModel:
    found = getattr(model, "model", model)
    if not hasattr(found, "network"):
        raise OptionError(
            f"`model` is a {type(model).__name__}, but must be a saved model's folder, a classifier or a TrainedModel."
        )
    return found  # type: ignore[no-any-return]


def _score_if_needed(classifier: Any) -> None:
    """Score a classifier that was trained, but not scored since, on its validation chips."""
    from geopsp.training.score_classifier import score_validation

    record = classifier.model.record
    if classifier.data is not None and record is not None and record.scores is None:
        score_validation(classifier)


def scoring_cost(model: str | Path, chips: Sequence[str | Path], device: str | None) -> ScoringCost:
    """Return what `score_test_chips` will cost, before the first tile.

    Raises:
        InputNotFoundError, PackageError, ChipError: if model or chips cannot be read.
        ModelError, TrainingError: as `estimate_scoring`.
    """
    from geopsp.models.saved_model import load_model
    from geopsp.training.estimate_scoring import estimate_scoring

    return estimate_scoring(load_model(model), ChipSet.open(chips), device)


def score_test_chips(
    model: str | Path | TrainedModel | Classifier, chips: Chips, device: str | None, *, allow_resolution_mismatch: bool
) -> tuple[Confusion, ChipScores]:
    """Return the scores of chips that the user names, and what reports show of them.

    Raises:
        BandError, ChipError, GridError: if the chips have other bands, classes or pixels of another size.
    """
    from geopsp.models.saved_model import load_model
    from geopsp.training.evaluate import chip_loader
    from geopsp.training.learned_pixels import require_scores
    from geopsp.training.score_chips import score_chips, with_footprints

    chip_set = chips if isinstance(chips, ChipSet) else ChipSet.open(chips)
    trained = load_model(local_model(model)) if isinstance(model, str | Path) else _trained(model)
    loader = chip_loader(trained, chip_set, allow_resolution_mismatch=allow_resolution_mismatch)
    name = ", ".join(folder.name for folder in chip_set.folders) or "other chips"
    scores, found = score_chips(trained, loader, f"the chips in {name}", device=device)
    require_scores(scores, trained.losses)
    return scores, with_footprints(found, loader)
