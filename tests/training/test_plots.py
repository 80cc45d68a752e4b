"""Figures show names as they are, chips alike, results with their errors, and each appears once."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from names_common import NASTY
from notebook_common import parse_html, texts

from geopsp import PixelClassifier, prepare_data
from geopsp.core.bands import BandStats, Normalization
from geopsp.core.escape import printable
from geopsp.core.legend import Legend
from geopsp.errors import BandError, OptionError, TrainingError
from geopsp.training.chip_predictions import predict_whole_chips
from geopsp.training.loss_range import loss_range
from geopsp.training.metrics import Confusion
from geopsp.training.plots import (
    add_legend,
    chip_names,
    common_limits,
    plain_text,
    plot_confusion,
    plot_losses,
    save_figure,
    to_rgb,
)
from geopsp.training.result_figure import ERROR, error_share

mpl.use("agg")


@pytest.fixture(scope="module")
def data(small_world):
    found = prepare_data(small_world["chips"], batch_size=8, cache=small_world["cache"])
    return replace(found, train_rows=found.train_rows[:16], valid_rows=found.valid_rows[::5][:8])


@pytest.fixture(scope="module")
def model(trained, data):
    return PixelClassifier.from_model(trained, data=data)


@pytest.mark.filterwarnings("ignore:Glyph")  # not every font has every letter
@pytest.mark.parametrize("name", NASTY)
def test_names_in_figures_are_no_formulas(name, tmp_path, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "text.usetex", True)  # as some users have it: TeX could read files
    with plain_text():
        figure = plt.figure()
        title = figure.suptitle(printable(name))
        add_legend(figure, [(name, "#123456"), ("b", "#ff0000")])
    (legend,) = figure.legends
    shown = [title, *legend.get_texts()]
    assert [text.get_text() for text in shown] == [printable(name), printable(name), "b"]
    assert not any(text.get_usetex() or text.get_parse_math() for text in shown)
    assert save_figure(figure, tmp_path / "f.png").stat().st_size > 0


def shown(axes):
    """The layers of a panel as arrays."""
    return [np.asarray(layer.get_array()) for layer in axes.images]


def test_all_chips_are_stretched_alike():
    """The same value has the same colour in every chip; white and black are 2 std from the mean, or what occurs."""
    rng = np.random.default_rng(0)
    data = np.stack([rng.normal(100, 20, (500, 40)), rng.uniform(0, 1, (500, 40)), np.full((500, 40), 7.0)])
    stats = BandStats.from_array(data, np.ones((500, 40), bool))
    limits, norm = common_limits(stats), Normalization.from_stats(stats)
    valid = np.ones((2, 2), bool)
    dark, bright = (np.array([[[90.0, 100], [low, low]], [[0.5, 0], [0, 1]], [[7, 7], [7, 7]]]) for low in (0, 999))
    first, second = (to_rgb(norm(chip, valid), valid, (0, 1, 2), limits) for chip in (dark, bright))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0, 0, 0] == pytest.approx((90 - (stats.mean[0] - 2 * stats.std[0])) / (4 * stats.std[0]), abs=1e-6)
    assert (first[1, 0, 0], second[1, 0, 0]) == (0, 1)
    assert first[0, 1, 1] == pytest.approx(0, abs=1e-3), "a band does not reach below its lowest value"
    assert np.isfinite(first).all()


def test_one_batch_is_shown_with_names_and_one_stretch(data):
    figure = data.show_batch(rows=1, rgb_bands=["nir", "red", "nir"])
    named = [axes.get_title() for axes in figure.axes[::2]]
    assert set(named) <= set(chip_names(data.chips))
    image, label = shown(figure.axes[0])[0], shown(figure.axes[1])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    np.testing.assert_array_equal(label[0], image)
    with pytest.raises(BandError, match="blue"):
        data.show_batch(rows=1, rgb_bands=["blue"])


@pytest.mark.parametrize("which", ["random", "worst"])
def test_results_are_the_worst_first_with_their_errors(model, which):
    figure = model.show_results(3, which=which)
    grid = np.array(figure.axes).reshape(-1, 4)
    assert [axes.get_title() for axes in grid[0, 1:3]] == ["ground truth", "prediction"]
    errors = [float(axes.get_title().removeprefix("errors: ").removesuffix("%")) for axes in grid[:, 3]]
    assert errors == sorted(errors, reverse=True)
    data, found = model.data, model.model
    shares = {each.row: error_share(each) for each in predict_whole_chips(found, data.valid_ds, None)}
    names = chip_names(data.chips)
    if which == "worst":
        assert errors == [round(100 * share, 1) for share in sorted(shares.values(), reverse=True)[:3]]
    by_name = {names[row]: share for row, share in shares.items()}
    for row, error in zip(grid, errors, strict=True):
        assert round(100 * by_name[row[0].get_title()], 1) == error
        is_error = np.isclose(shown(row[3])[0], np.array(ERROR) / 255, atol=1e-6).all(axis=2)
        truth, predicted = shown(row[1])[1], shown(row[2])[1]
        known = truth[..., 3] > 0
        assert (is_error == known & (predicted[..., 3] > 0) & (truth != predicted).any(axis=2)).all()
        assert is_error.sum() / known.sum() == pytest.approx(error / 100, abs=6e-4)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*found.legend.names, "error", "no label"]


def test_what_cannot_be_shown(model):
    with pytest.raises(OptionError, match="`which` is 'best'"):
        model.show_results(which="best")
    with pytest.raises(BandError, match="blue"):
        model.show_results(rgb_bands=["blue"])
    with pytest.raises(TrainingError, match="none were tried"):
        model.plot_rates()


def history(losses):
    return [{"epoch": n, "train_loss": loss, "valid_loss": loss, "valid_miou": 0.5} for n, loss in enumerate(losses, 1)]


@pytest.mark.parametrize("bad", [4711.0, float("inf"), float("nan")])
def test_a_loss_that_ran_away_does_not_flatten_the_others(bad):
    usual = [1.0, 0.8, 0.7, 0.6, 0.5]
    low, high = plot_losses(history([*usual[:2], bad, *usual[2:]])).axes[0].get_ylim()
    assert (low, high) == pytest.approx(plot_losses(history(usual)).axes[0].get_ylim())
    assert low < 0.5
    assert 1 < high < 1.1
    figure = plot_losses(history([*usual[:2], 4711.0, *usual[2:]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["4.71e+03"] * 2


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_most_losses_are_shown(losses):
    low, high = loss_range(losses)
    assert low < high
    assert np.mean([low <= loss <= high for loss in losses]) >= 0.5
    assert low <= min(losses)


@pytest.mark.parametrize("losses", [[], [float("nan")], [0.0, 0.0], [-1.0, -2.0]])
def test_the_range_of_odd_losses(losses):
    low, high = loss_range(losses)
    assert np.isfinite([low, high]).all()
    assert low < high


def test_a_confusion_matrix_has_the_shares_of_the_truth():
    scores = Confusion(
        Legend.from_names({0: "background", 2: "a", 5: "never"}), np.array([[6, 2, 0], [1, 3, 0], [0] * 3])
    )
    panel = plot_confusion(scores).axes[0]
    np.testing.assert_allclose(panel.images[0].get_array(), [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 0]])
    assert [text.get_text() for text in panel.texts] == ["75%", "25%", "0%", "25%", "75%", "0%"]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["background", "a", "never"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("prediction", "ground truth")
    assert panel.get_title() == f"mIoU {scores.mean_iou():.3f}, accuracy 0.750"


def test_scores_are_described(model):
    scores = Confusion(Legend.from_names({0: "background", 2: "<b>"}), np.array([[6, 2], [1, 3]]))
    assert repr(scores) == f"<Confusion of 2 classes, 12 pixels: mIoU {scores.mean_iou():.3f}, accuracy 0.750>"
    root = parse_html(scores._repr_html_())
    rows = texts(root, "tr")
    assert rows[0] == "classprecisionrecallf1IoUpixels"
    assert rows[1] == "background0.8570.7500.8000.6678"
    assert rows[3] == "ground truth → predictionbackground<b>"
    assert rows[4:] == ["background75.0%25.0%", "<b>25.0%75.0%"]
    counted = parse_html(model.evaluate()._repr_html_())
    assert "boundary IoU" in texts(counted, "th")


def test_data_and_models_are_described(data, model, trained):
    for thing in (data.chips, data, model, model.model, PixelClassifier.from_model(trained)):
        root = parse_html(thing._repr_html_())
        assert {"background", "a", "b"} <= set(texts(root, "td"))
        assert repr(thing).startswith("<")
        assert "\n" not in repr(thing)
    rows = texts(parse_html(data.chips._repr_html_()), "tr")
    pixels = data.chips.pixels_per_class
    assert rows[-1].startswith(f"b{data.legend.codes[-1]}{pixels[-1]:,}{pixels[-1] / pixels.sum():.1%}")
    scored = texts(parse_html(PixelClassifier.from_model(trained)._repr_html_()), "th")
    assert scored[-4:] == ["class", "IoU", "precision", "recall"]


def test_a_figure_is_shown_once(monkeypatch):
    """As the result of a cell, it is shown and closed, so that pyplot does not show it at the end of the cell too."""
    published = []
    monkeypatch.setattr("IPython.display.display", lambda content, raw: published.append(content))
    figure = plot_losses(history([2.0, 1.0]))
    assert plt.fignum_exists(figure.number)
    figure._ipython_display_()
    assert not plt.fignum_exists(figure.number)
    (content,) = published
    image = plt.imread(BytesIO(b64decode(content["image/png"])))
    assert image[..., :3].std() > 0.05
