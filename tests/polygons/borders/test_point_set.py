"""Sets of points are those of Python."""

import numpy as np
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geopsp.polygons.borders.point_set import indices_among, is_among

POINTS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 40), st.just(2)),
    elements=st.sampled_from([0.0, -0.0, 1, 2, 2048, 1 / 3, 7.25]),
)


@given(points=POINTS, others=POINTS)
@settings(max_examples=examples(50), deadline=None)
def test_they_are_the_sets_of_python(points, others):
    known, asked = set(map(tuple, others.tolist())), list(map(tuple, points.tolist()))
    assert is_among(points, others).tolist() == [point in known for point in asked]
    places = {point: index for index, point in enumerate(map(tuple, others.tolist()))}  # the last of equal ones
    assert indices_among(points, others).tolist() == [places.get(point, -1) for point in asked]
