"""An area of interest that is named, and not read yet: geopandas takes 100 MB, and most maps have no area."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import geopandas as gpd

    from geopsp.labels.area import AreaOfInterest

AreaSource: TypeAlias = "str | Path | gpd.GeoDataFrame"


class LazyAreaOfInterest:
    """An area of interest, as the user named it; read when it is first needed, once in each process."""

    def __init__(self, source: AreaSource) -> None:
        self.source = source
        self._area: AreaOfInterest | None = None

    def area(self) -> AreaOfInterest:
        """Return the polygons.

        Raises:
            InputNotFoundError, LabelError: as `AreaOfInterest.read`.
        """
        if self._area is None:
            from geopsp.labels.area import AreaOfInterest

            self._area = AreaOfInterest.read(self.source)
        return self._area

    def __reduce__(self) -> tuple[type[LazyAreaOfInterest], tuple[AreaSource]]:
        return LazyAreaOfInterest, (self.source,)
