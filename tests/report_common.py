"""A report made of nothing but numbers, and its page taken apart."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.core.pictures import jpeg_of_colors, png_of_classes, png_of_indices
from geopsp.model_report.map_panel import MapPanel, PanelClass
from geopsp.model_report.report_page import ModelReport
from geopsp.models.loss_options import LossSpec
from geopsp.models.model_info import ModelInfo
from geopsp.models.spec import ModelSpec
from geopsp.models.training_record import ChipScores, TrainingRecord

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements of a page with their attributes and texts; a tag that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            raise AssertionError(f"{tag} closes {self.open[-3:]}")
        self.open.pop()

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def chip_scores(legend, *, name="the validation chips", pictures=True, **more):
    """Scores of a confusion matrix in which most pixels are right."""
    count = len(legend)
    confusion = (np.eye(count, dtype=int) * 900 + np.arange(count * count).reshape(count, count)).tolist()
    picture = png_of_classes(np.zeros((4, 4), np.uint8), legend)
    chip = {
        "name": "000001.tif", "place": "scene.tif, column 0, row 32", "longitude": 10.4, "latitude": 47.8, "miou": 0.4,
        "accuracy": 0.9, "image": jpeg_of_colors(np.zeros((4, 4, 3), np.uint8)), "truth": picture, "found": picture,
        "errors": png_of_indices(np.zeros((4, 4), np.uint8), [(1, 2, 3)]),
    }  # fmt: skip
    bins = [{"low": 0.5, "high": 1.0, "pixels": 10, "confidence": 0.8, "accuracy": 0.7}]
    entry = {"mean_confidence": 0.8, "ece": 0.1, "mce": 0.1, "nll": 0.5, "brier": 0.2, "bins": bins}
    return ChipScores.model_validate(
        {
            "name": name, "chips": 12, "confusion": confusion, "boundary": [[3, 4]] * count, "blocks": 12,
            "block_words": "blocks of ground of 256 m", "intervals": [[0.5, 0.95]] * (1 + 3 * count) + [None],
            "confidence_level": 0.95, "notes": ["Rough."], "reliability": [{"name": "uncalibrated", **entry}],
            "pictures": [{"kind": kind, **chip} for kind in ("worst", "best")] if pictures else [],
            "bands": [[1, 2, 3, 4]], **more,
        }
    )  # fmt: skip


def square(x, y, side=64.0):
    return [x, y, x, y + side, x + side, y + side, x + side, y]


def training_record(legend, **more):
    """A record of a training on two groups of chips."""
    counts = {"train_pixels": 700, "valid_pixels": 200, "train_chips": 9, "valid_chips": 3}
    content = {
        "created": "2026-11-30T12:00:00Z", "seconds": 98.2, "device": "CPU (1 thread)", "platform": "Linux x86_64",
        "versions": {"geopsp": "0.2.0", "torch": "2.15.0"}, "working_folder": "/data/place",
        "code": ["data = prepare_data('chips')", "model = PSPNetClassifier(data)", "model.fit(3)"],
        "inputs": [{"path": "chips", "files": 30, "size": 1_200_000, "sha256": "ab" * 32}], "chip_size": 64,
        "split": {
            "train": 9, "valid": 3, "dropped": 1, "unlabelled": 0, "shared_pixels": 0, "gap": 64.0,
            "missing_in_train": [], "missing_in_valid": [], "by": "blocks", "units": "metre",
            "words": "9 training chips and 3 validation chips; no overlap",
        },
        "classes": [{"name": info.name, **counts} for info in legend],
        "footprints": {
            "crs": "EPSG:32632", "train": [square(600_000 + 64 * i, 5_300_000) for i in range(9)],
            "valid": [square(900_000, 5_300_000)] * 3, "dropped": [square(600_640, 5_300_000)], "shown": 13,
            "total": 13,
        },
        "bands": [{"band": "red", "low": 0.0, "high": 4.0, "counts": [4, 3, 2, 1]}],
        **more,
    }  # fmt: skip
    return TrainingRecord.model_validate(content)


def model_info(legend, **more):
    entries = {
        "spec": ModelSpec("resnet18", bands=1, classes=len(legend)), "legend": legend, "bands": ("red",),
        "statistics": BandStats.from_array(np.arange(8.0).reshape(1, 2, 4), np.ones((2, 4), bool)), "dtype": "uint8",
        "tile_size": 64, "cell_size": (1.0, 1.0), "units": "metre", "losses": LossSpec(),
        "settings": {"network": "PSPNetClassifier", "encoder_weights": None},
        "history": [{"epoch": n, "train_loss": 1 / n, "valid_loss": 2 / n, "valid_miou": 0.5, "lr": 1e-3}
                    for n in (1, 2, 3)],
        "metrics": {},
    }  # fmt: skip
    return ModelInfo(**(entries | more))


def map_panel(legend):
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6) % len(legend)
    return MapPanel(
        "map.tif", 6, 4, tuple(PanelClass(info.name, info.color, 0.5) for info in legend),
        png_of_classes(indices, legend), jpeg_of_colors(np.zeros((4, 6, 3), np.uint8)), "EPSG:32632", "6 x 4 pixels",
        '{"transform": [1, 0, 600000, 0, -1, 5300000], "degrees": []}',
    )  # fmt: skip


def model_report(legend=None, **more):
    """A report with all that it can tell."""
    legend = legend or Legend.from_names({0: "background", 3: "water"})
    scores = chip_scores(legend)
    return ModelReport(
        **{
            "name": "model", "folder": "runs/model", "model": model_info(legend), "run_config": "command: train\n",
            "record": training_record(legend, scores=scores.model_dump(), command="geopsp train chips --out model"),
            "versions": {"geopsp": "0.2.0"}, "panel": map_panel(legend),
            "test": chip_scores(legend, name="the chips of test"), **more,
        }
    )  # fmt: skip
