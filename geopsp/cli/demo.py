"""The whole job on the sample data: chips, training, scores on a held-out scene, map, polygons, report."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from geopsp.chips.chip_folder import CHIP_FOLDER, MANIFEST
from geopsp.chips.chip_set import ChipSet
from geopsp.chips.export_training_data import export_training_data
from geopsp.cli.plan import Plan
from geopsp.core.addresses import shown
from geopsp.core.escape import html_text
from geopsp.core.output import atomic_output, check_output
from geopsp.core.owned_files import FolderKind
from geopsp.core.progress import progress_bar
from geopsp.core.sample_data import SCENES, TEST, find_sample_data
from geopsp.inference.classify_pixels import classify_pixels
from geopsp.models.manifest import MODEL_FOLDER
from geopsp.models.training_record import ChipScores, TrainingRecord, record_text
from geopsp.report.preview import preview
from geopsp.report.summary import describe_scores
from geopsp.training.classifier import PixelClassifier
from geopsp.training.metrics import Confusion
from geopsp.training.networks import PSPNetClassifier
from geopsp.training.report_classifier import score_test_chips, write_score_report
from geopsp.training.training_data import prepare_data

logger = logging.getLogger(__name__)

REPORT = "report.html"

DEMO_FOLDER = FolderKind(
    REPORT,
    (
        "scores.json", "*.png", "map.*", "test_map.*", "probabilities.tif",
        *(f"model/{name}" for name in ("model.json", *MODEL_FOLDER.patterns)),
        *(f"{chips}/{name}" for chips in ("chips", "test_chips") for name in (MANIFEST, *CHIP_FOLDER.patterns)),
    ),
)  # fmt: skip

NUM_BYTES = 100e6
"""About the size of the folder."""

START_SECONDS, EPOCH_SECONDS = 60, 5
"""About how long two cores take: for all but training, and for an epoch."""

TILE, BATCH_SIZE, EPOCHS = 128, 8, 36

OUTPUT_STRIDE, ENCODER_DEPTH = 16, 4
"""Faster than 8 and 5: more epochs in the same time give better scores (docs/benchmarks.md)."""

SIMILAR_CLASSES = ("boat", "car")
"""Their pixels look the same; only the surroundings tell them apart."""


def plan(out: Path, *, data: Path | None = None, epochs: int | None = None, overwrite: bool = False) -> Plan:
    """Return what `run` would do.

    Raises:
        InputNotFoundError, OutputError: as `run`.
    """
    sample = find_sample_data(data)
    check_output(out, overwrite=overwrite, folder=True, kind=DEMO_FOLDER)
    epochs = epochs or EPOCHS
    return Plan(
        reads=[sample / name for name in (*SCENES, TEST, "labels.gpkg", "test_labels.gpkg")],
        notes=[f"{epochs} epochs of training, one map of two scenes and one of a third, and a report."],
        writes=[out],
        max_bytes=NUM_BYTES,
        seconds=START_SECONDS + epochs * EPOCH_SECONDS,
    )


def run(out: Path, *, data: Path | None = None, epochs: int | None = None, overwrite: bool = False) -> Confusion:
    """Write chips, model, map, polygons, pictures and a report to the folder `out`; return the held-out scores."""
    start = time.monotonic()
    sample = find_sample_data(data)
    with atomic_output(out, overwrite=overwrite, folder=True, kind=DEMO_FOLDER) as folder:
        chips = export_sample(sample, SCENES, "labels.gpkg", folder / "chips")
        held_out = export_sample(sample, (TEST,), "test_labels.gpkg", folder / "test_chips")
        model = _train(chips, epochs or EPOCHS)
        scores, found = score_test_chips(model, held_out, None, allow_resolution_mismatch=False)
        model.model.record = _with_final_paths(model.model.record, folder, out)
        model.save(folder / "model")
        scenes = [sample / name for name in SCENES]
        classify_pixels(scenes, model, folder / "map.tif", polygons=folder / "map.gpkg",
                        probabilities=folder / "probabilities.tif")  # fmt: skip
        classify_pixels(sample / TEST, model, folder / "test_map.tif")
        _write(folder, scores, found, sample, out, seconds=time.monotonic() - start)
    _log_results(out, scores, time.monotonic() - start)
    return scores


def export_sample(sample: Path, scenes: tuple[str, ...], labels: str, out: Path) -> ChipSet:
    """Export chips of scenes of the sample data."""
    with progress_bar("Cutting chips") as progress:
        return export_training_data(
            [sample / name for name in scenes],
            f"{sample / labels}|layername=landcover",
            out,
            class_field="landcover",
            tile_size=TILE,
            background="ignore",
            aoi=f"{sample / labels}|layername=aoi",
            progress=progress,
        )


def _train(chips: ChipSet, epochs: int) -> PixelClassifier:
    data = prepare_data(chips.folders, batch_size=BATCH_SIZE)
    model = PSPNetClassifier(
        data,
        backbone="resnet18",
        encoder_weights=None,
        class_balancing=True,
        output_stride=OUTPUT_STRIDE,
        encoder_depth=ENCODER_DEPTH,
        pointrend=True,
    )
    logger.info(repr(model))
    model.fit(epochs)
    return model


def _with_final_paths(record: TrainingRecord | None, folder: Path, out: Path) -> TrainingRecord | None:
    """Return a record that names files as they will be: the folder has its name only when it is complete."""
    if record is None:
        return None
    now, later = (json.dumps(path)[1:-1] for path in (str(folder), shown(out)))
    return TrainingRecord.model_validate_json(record_text(record).replace(now, later))


def _write(folder: Path, scores: Confusion, found: ChipScores, sample: Path, out: Path, *, seconds: float) -> None:
    """Write pictures of the maps, the report, and the scores as JSON."""
    for name in ("map", "test_map"):
        preview(folder / f"{name}.tif", folder / f"{name}.png")
    write_score_report(
        folder / "model", folder / REPORT, found, map=folder / "test_map.tif", images=sample / TEST, overwrite=True
    )
    page = (folder / REPORT).read_text(encoding="utf-8")
    (folder / REPORT).write_text(page.replace(html_text(str(folder)), html_text(shown(out))), encoding="utf-8")
    content = {**scores.to_json(), "seconds": round(seconds), "boat_car_confused": scores.confused(*SIMILAR_CLASSES)}
    (folder / "scores.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _log_results(out: Path, scores: Confusion, seconds: float) -> None:
    for line in ("", "Scores on the held-out scene:", *describe_scores(scores).splitlines()):
        logger.info(line)
    logger.info(f"Boat and car pixels mistaken for each other: {scores.confused(*SIMILAR_CLASSES):.1%}")
    logger.info("")
    for name, what in (
        (REPORT, "report"), ("map.tif", "map of both scenes"), ("map.gpkg", "its polygons"),
        ("probabilities.tif", "its probabilities"), ("map.png", "its picture"),
        ("test_map.png", "map of the third scene"),
        ("model", "trained model"), ("chips", "training chips"),
    ):  # fmt: skip
        logger.info(f"{what:26} {shown(out / name)}")
    logger.info(f"Done in {seconds:.0f} s.")
