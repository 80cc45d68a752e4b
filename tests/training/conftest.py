"""Training in tests does not depend on how fast a processor is at the moment."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_trial_of_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without bfloat16: `auto` is float32; tests of the trial call it themselves."""
    monkeypatch.setattr("geopsp.training.precision.resolve_precision", lambda *_: "fp32")
