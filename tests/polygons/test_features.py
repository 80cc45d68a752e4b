"""Features can be taken, concatenated and dissolved without changing their geometries."""

import numpy as np
import shapely
from common import examples
from hypothesis import given, settings
from polygons_common import TRANSFORM, rasters, swept

from geopsp.polygons.features import concatenate, dissolve, take

some = settings(max_examples=examples(30), deadline=None)


@some
@given(codes=rasters())
def test_any_order_can_be_taken(codes):
    found = swept(codes, cell_size=4, connectivity=8)
    order = np.arange(len(found))[::-1]
    assert shapely.equals_exact(take(found, order).to_shapely(TRANSFORM), found.to_shapely(TRANSFORM)[::-1]).all()


@some
@given(codes=rasters())
def test_parts_put_together_are_the_whole(codes):
    found = swept(codes, cell_size=4, connectivity=8)
    parts = [take(found, np.arange(first, min(first + 2, len(found)))) for first in range(0, len(found), 2)]
    again = concatenate([*parts, take(found, np.arange(0))])
    assert shapely.equals_exact(again.to_shapely(TRANSFORM), found.to_shapely(TRANSFORM)).all()
    assert np.array_equal(again.sums, found.sums)


@some
@given(codes=rasters())
def test_one_feature_a_code_has_all_its_pixels(codes):
    found = swept(codes, cell_size=4)
    whole, starts = dissolve(found)
    present = np.unique(codes[codes != 255])
    assert np.array_equal(whole.codes, present)
    assert len(starts) == len(present)
    shapes = whole.to_shapely(TRANSFORM)
    assert shapely.is_valid(shapes).all()
    for code, shape, pixels in zip(present, shapes, whole.sums[:, 0], strict=True):
        assert pixels == (codes == code).sum()
        assert shape.area == 100 * pixels
        assert shapely.equals(shape, shapely.union_all(found.to_shapely(TRANSFORM)[found.codes == code]))
