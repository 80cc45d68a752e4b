"""Maps in object stores: the bytes that a disk gets, whatever befalls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from inference_common import CLASSES, trained_model

from geopsp import classify_pixels
from geopsp.errors import OutputError


@pytest.fixture
def image(make_raster):
    rng = np.random.default_rng(0)
    return make_raster("image.tif", rng.integers(1, CLASSES + 1, (1, 60, 90)).astype(np.uint8))


@pytest.fixture
def model():
    return SimpleNamespace(model=trained_model(), device="cpu")


def test_a_map_in_a_bucket_is_that_of_a_disk(image, model, bucket, store, tmp_path):
    names = {"probabilities": "p.tif", "confidence": "c.tif", "polygons": "m.gpkg"}
    out = f"s3://{bucket}/maps/map.tif"
    found = classify_pixels(
        image, model, out, stac=True, **{name: f"s3://{bucket}/maps/{file}" for name, file in names.items()}
    )
    assert str(found) == out
    local = tmp_path / "local"
    classify_pixels(image, model, local / "map.tif", stac=True, **{n: local / f for n, f in names.items()})
    there = {name.partition("/maps/")[2]: name for name in store.find(f"{bucket}/maps")}
    assert set(there) == {path.name for path in local.iterdir()}
    for name, key in there.items():
        if not name.endswith((".json", ".gpkg")):
            assert store.cat_file(key) == (local / name).read_bytes(), name
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]
    with pytest.raises(OutputError, match=r"s3://.*map.tif already exists. Use `overwrite=True`"):
        classify_pixels(image, model, out)
