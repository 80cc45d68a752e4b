"""A sample as a table for people."""

from __future__ import annotations

from typing import Any

from geopsp.assessment.sampling.sample_file import Sample
from geopsp.core.escape import printable
from geopsp.core.text import format_count

HEADER = ("stratum", "pixels", "area (ha)", "share", "points")


def sample_report(sample: Sample) -> dict[str, Any]:
    """Return the content of `describe_sample` for JSON."""
    strata = [
        {
            "stratum": each.stratum, "pixels": each.pixels, "area_ha": each.area_ha, "sample_size": each.sample_size,
        }
        for each in sample.strata
    ]  # fmt: skip
    return {
        "map": sample.map_name, "design": sample.design, "seed": sample.seed, "points": sample.num_drawn,
        "classes": [{"code": each.code, "name": each.name} for each in sample.classes], "strata": strata,
        "clusters": sample.clusters, "sampled_clusters": sample.sampled_clusters, "cluster_size": sample.cluster_size,
    }  # fmt: skip


def describe_sample(sample: Sample) -> str:
    """Return the strata of a sample as a table of text: pixels, area, share of the area, and points drawn."""
    area = sum(stratum.area_ha for stratum in sample.strata)
    rows = [
        (
            printable(stratum.stratum), f"{stratum.pixels:,}", f"{stratum.area_ha:,.2f}",
            f"{stratum.area_ha / area:.2%}" if area else "", f"{stratum.sample_size:,}",
        )
        for stratum in sample.strata
    ]  # fmt: skip
    pixels, drawn = sum(each.pixels for each in sample.strata), sample.num_drawn
    rows.append(("all", f"{pixels:,}", f"{area:,.2f}", "", f"{drawn:,}"))
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    lines = [
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in (HEADER, *rows)
    ]
    if sample.clusters is not None and sample.sampled_clusters is not None:
        size = sample.cluster_size
        blocks = format_count(sample.sampled_clusters, "block")
        lines.append(f"{blocks} of {size} x {size} pixels, of {sample.clusters:,} in the map")
    return "\n".join(lines)
