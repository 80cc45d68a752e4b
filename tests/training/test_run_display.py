"""What is seen of a run: few lines, and in a notebook a short table and charts."""

from __future__ import annotations

import re

import pytest
from notebook_common import parse_html, texts

from geopsp.training.run_display import LAST_EPOCHS, LINES, RunDisplay, best_epoch, epoch_charts, epoch_table


def epochs(scores, losses=None):
    losses = losses or [1 / n for n in range(1, len(scores) + 1)]
    return [
        {"epoch": n, "train_loss": loss, "valid_loss": loss, "valid_miou": score, "accuracy": 0.9, "seconds": 65}
        for n, (score, loss) in enumerate(zip(scores, losses, strict=True), 1)
    ]


@pytest.mark.parametrize("count", [1, 3, 20, 36, 300])
def test_a_long_run_has_few_lines_with_the_first_and_the_last(count, capsys):
    display, rows = RunDisplay("valid_miou"), epochs([0.5] * count)
    for n in range(1, count + 1):
        display.epoch(f"epoch {n}/{count}", rows[:n], (n * 8 + 0.5) / (count * 8), "0:10")
    told = [int(re.search(r"epoch (\d+)/", line)[1]) for line in capsys.readouterr().err.splitlines()]
    assert told[0] == 1
    assert told[-1] == count
    assert len(told) <= LINES + 1
    assert told == list(range(1, count + 1)) or count > LINES


@pytest.mark.parametrize(("monitor", "best"), [("valid_miou", 3), ("valid_loss", 40)])
def test_the_table_has_the_last_epochs_and_the_best(monitor, best):
    rows = epochs([0.1, 0.2, 0.7, *[0.5] * 37])
    assert best_epoch(rows, monitor)["epoch"] == best
    lines = texts(parse_html(epoch_table(rows, monitor)), "tr")
    assert len(lines) == 1 + LAST_EPOCHS + (best == 3)
    assert [line for line in lines if "(best)" in line] == [lines[1 if best == 3 else -1]]
    assert lines[-1].endswith("1:05")


def test_no_epoch_is_the_best_if_none_has_a_score():
    rows = epochs([float("nan")] * 3)
    assert best_epoch(rows, "valid_miou") is None
    assert "–" in epoch_table(rows, "valid_miou")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_charts_stay_in_their_area(bad):
    root = parse_html(epoch_charts(epochs([0.1, 0.5, float("nan"), 0.6], [1.0, bad, 0.8, 0.5])))
    charts = list(root.iter("svg"))
    assert [chart.get("aria-label").split()[0] for chart in charts] == ["loss", "mIoU"]
    for chart in charts:
        width, height = (float(chart.get(name)) for name in ("width", "height"))
        for line in chart.iter("polyline"):
            points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
            assert 3 <= len(points) <= 4
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert epoch_charts(epochs([0.5])) == ""
