import pytest

from geopsp.chips.class_balance import class_warnings, is_imbalance, warning_text
from geopsp.core.legend import Legend

LEGEND = Legend.from_names({0: "background", 1: "water", 4: "road"})


@pytest.mark.parametrize(
    ("pixels", "chips", "words"),
    [
        ([500, 300, 200], [9, 5, 5], []),
        ([0, 300, 200], [0, 5, 5], []),
        ([500, 0, 200], [9, 0, 9], ["No pixel is labelled 'water'"]),
        ([500, 1, 200], [9, 1, 9], ["Class 'water' occurs in only 1 chip; at least 5 are needed"]),
        ([500, 9, 200], [9, 4, 9], ["Class 'water' occurs in only 4 chips; at least 5 are needed"]),
        ([999_001, 999, 10**6], [9, 9, 9], ["Only 0.050% of labelled pixels are 'water'"]),
        ([499_000, 1000, 500_000], [9, 9, 9], []),
        ([950, 25, 25], [9, 9, 9], []),
        ([0, 0, 0], [0, 0, 0], ["No pixel is labelled 'water'", "No pixel is labelled 'road'"]),
    ],
)
def test_rare_classes(pixels, chips, words):
    found = class_warnings(LEGEND, pixels, chips)
    assert len(found) == len(words)
    assert all(warning["text"].startswith(word) for warning, word in zip(found, words, strict=True))
    assert {warning["kind"] for warning in found} <= {"imbalance"}
    assert all(map(is_imbalance, found))


def test_a_dominant_class():
    (warning,) = class_warnings(LEGEND, [960, 20, 20], [9, 9, 9])
    assert warning["text"] == (
        "96.0% of labelled pixels are background, so a model that predicts only background would still score 96% "
        "accuracy. Use `balanced_sampling=True` when training, or `skip_empty=True` when cutting chips."
    )
    (warning,) = class_warnings(LEGEND, [20, 960, 20], [9, 9, 9])
    assert warning["text"].endswith("Use `balanced_sampling=True` when training.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("water has no pixel, so it cannot be learned: label some, or drop it (class_mapping).", True),
        ("water is in 1 chip only; needed at least 5 for both parts of a split. Export more chips of it.", True),
        ("water is 0.050% of the labelled pixels: train with balanced_sampling=True", True),
        ("background is 95.1% of the labelled pixels, so a model that finds nothing else scores well", True),
        ("The chips have no georeference: they cannot be split by blocks of ground.", False),
    ],
)
def test_warnings_of_version_0_1_are_texts(text, expected):
    assert is_imbalance(text) == expected
    assert warning_text(text) == text
    assert not is_imbalance({"kind": "input", "text": text})
    assert warning_text({"kind": "input", "text": text}) == text
