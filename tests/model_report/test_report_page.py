"""The page of a report: well formed, accessible, without network, with no script but its own; numbers are right."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from common import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from names_common import NASTY, is_safe, names
from report_common import Page, chip_scores, model_info, model_report, training_record

from geopsp.core.escape import printable
from geopsp.core.legend import Legend
from geopsp.model_report.report_page import report_page
from geopsp.training.metrics import Confusion

LEGEND = Legend.from_names({0: "background", 3: "water"})


@pytest.fixture(scope="module")
def text():
    return report_page(model_report())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_a_page_needs_no_network(text, page):
    links = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert links
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(text) < 200_000


def test_no_script_runs_but_its_own(page):
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    (script,) = page.scripts
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_a_screen_reader_finds_its_way(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby", "for", "data-of"):
            assert set(attributes.get(name, "").split()) <= set(ids)
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(image.get("alt") for image in page.all("img"))
    assert all(chart.get("aria-label") and chart["role"] == "img" for chart in page.all("svg"))
    assert all(head.get("scope") for head in page.all("th")[1:] if head)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("input") == tags.count("label")
    assert {"header", "nav", "main", "footer"} <= set(tags)


def test_scores_are_those_of_an_evaluation():
    scores = chip_scores(LEGEND)
    expected = Confusion(LEGEND, np.array(scores.confusion), np.array(scores.boundary))
    words = Page(report_page(model_report(record=training_record(LEGEND, scores=scores.model_dump()), test=None))).words
    assert f"mean IoU {expected.mean_iou():.3f} 0.500 to 0.950" in words
    assert f"accuracy {expected.accuracy():.3f} 0.500 to 0.950" in words
    for name, row in expected.per_class().iterrows():
        cells = " ".join(f"{row[column]:.3f} {column} of {name}: {row[column]:.3f}.*?"
                         for column in ("precision", "recall"))  # fmt: skip
        assert re.search(cells, words)
        assert f"boundary IoU of {name}: {row['boundary_iou']:.3f}" in words
    assert "12 blocks (blocks of ground of 256 m)" in words
    first = scores.confusion[0]
    assert f"{100 * first[0] / sum(first):.1f} % {first[0]:,}" in words


def test_all_that_is_known_is_told(page):
    for told in (
        "On the chips of test (12 with labels)", "On the validation chips:", "Rough.", "Confusion matrix", "Confidence",
        "Worst and best chips", "47.80000, 10.40000", "Loss", "Mean IoU, validation", "Learning rate",
        "9 training chips and 3 validation chips; no overlap.", "left out between them", "Classes and their balance",
        "Bands", "geopsp train --config runs/model --out runs/model-2", "model.fit(3)", "model.save('runs/model-2')",
        "geopsp train chips --out model", "98 s", "/data/place", "1.2 MB", "abababababababab",
        "command: train", "2026-11-30 12:00:00 UTC", "Hide all",
    ):  # fmt: skip
        assert told in page.words, told
    assert len([chart for chart in page.all("svg") if "Outlines of chips" in chart["aria-label"]]) == 2


def test_a_model_of_an_earlier_version_has_a_shorter_report():
    counts = Confusion(LEGEND, np.array([[8, 2], [1, 9]])).to_json()
    old = model_report(record=None, test=None, panel=None, run_config="", model=model_info(LEGEND, metrics=counts))
    page = Page(report_page(old))
    assert "holds no training.json" in page.words
    assert "accuracy 0.850" in page.words
    assert "No intervals are known." in page.words
    assert page.scripts == []
    bare = replace(old, model=model_info(LEGEND, metrics={"confusion": "x"}, history=[]))
    assert "Confusion matrix" not in Page(report_page(bare)).words


@pytest.mark.parametrize("legend", [LEGEND, Legend.from_names({i: f"class {i}" for i in range(60)})])
def test_few_and_many_classes_and_epochs(legend):
    history = [{"epoch": n, "train_loss": float(n), "valid_miou": None} for n in range(5000)]
    text = report_page(model_report(legend, model=model_info(legend, history=history)))
    heads = [each for each in Page(text).all("th") if each.get("scope") == "col"]
    assert len(heads) == 6 + min(len(legend), 30) + 7 + 4
    assert len(text) < 1e6


@settings(max_examples=examples(12))
@given(texts=st.lists(names, min_size=6, max_size=6, unique_by=printable))
@example(texts=["<script>alert(1)</script>", '"><img src=x onerror=a>', "'--><style>", *NASTY[4:7]])
def test_names_of_strangers_stay_text(texts):
    first, second, third, fourth, path, band = texts
    legend = Legend.from_names({1: first, 4: second})
    scores = chip_scores(legend, name=third)
    record = training_record(
        legend, scores=scores.model_dump(), command=fourth, code=[third], working_folder=path,
        inputs=[{"path": path, "files": 1, "size": 1, "sha256": "ab" * 32}],
        bands=[{"band": band, "low": 0.0, "high": 4.0, "counts": [1, 2, 3, 4]}],
    )  # fmt: skip
    report = model_report(
        legend, name=third, folder=path, run_config=fourth, record=record, versions={first: second},
        model=model_info(legend, settings={"network": third, "warnings": [fourth], "encoder_weights": path}),
    )  # fmt: skip
    found, plain = Page(report_page(report)), Page(report_page(model_report()))
    assert {tag for tag, _ in found.elements} == {tag for tag, _ in plain.elements}
    assert {name for _, each in found.elements for name in each} <= {
        name for _, each in plain.elements for name in each
    }
    assert found.scripts == plain.scripts
    assert is_safe("".join(found.texts))
    assert printable(first) in found.words or first.split()
