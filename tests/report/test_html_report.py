"""The report shows how far confidence is accuracy, where that was scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geopsp.core.legend import Legend
from geopsp.models.calibration import Calibration
from geopsp.report.html_report import write_report
from geopsp.training.metrics import Confusion
from geopsp.training.reliability import ReliabilityCounter

LEGEND = Legend.from_names({0: "background", 1: "<b>water"})


def scores(calibration):
    logits = 3 * torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    counter = ReliabilityCounter(calibration, 2, [], torch.device("cpu"))
    counter.add(torch.randint(0, 2, (1, 16, 16)), logits, logits.argmax(dim=1))
    return Confusion(LEGEND, np.array([[3, 1], [1, 2]]), None, *counter.results(LEGEND))


@pytest.mark.parametrize("calibration", [None, Calibration("temperature", 2.0)])
def test_a_report_has_a_diagram_of_confidence(tmp_path, calibration):
    found = scores(calibration)
    path = write_report(tmp_path / "report.html", title="A run", scores=found, notes=[], pictures={}, texts={})
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 1
    assert f"{found.reliability.ece():.4f}" in page
    assert (">calibrated<" in page) == (calibration is not None)
    assert "<b>water" not in page


def test_a_report_without_reliability_has_none(tmp_path):
    plain = Confusion(LEGEND, np.array([[3, 1], [1, 2]]))
    path = write_report(tmp_path / "report.html", title="A run", scores=plain, notes=[], pictures={}, texts={})
    assert "Confidence" not in path.read_text()
