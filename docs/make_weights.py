"""Write weights.md, the reference of published encoder weights for satellites, from the table in the code."""

from __future__ import annotations

from pathlib import Path

from geopsp.models.spectral_bands import SENSORS
from geopsp.models.weight_sets import WEIGHT_SETS, WeightSet, weights_table

PAGE = Path(__file__).with_name("weights.md")

INTRODUCTION = """\
# Encoder weights for satellites

Written by `python docs/make_weights.py` from `WEIGHT_SETS` in `geopsp/models/weight_sets.py`; do not edit.

Encoders that were trained on satellite images of many bands, as torchgeo publishes them: `PSPNetClassifier(data,
backbone="resnet50", encoder_weights="ssl4eo-s2-moco")`, in the shell `geopsp train --backbone resnet50 --weights
ssl4eo-s2-moco`. `geopsp weights` and `geopsp.supported_weights()` list them. None of them is the
default: try them beside `imagenet`.

**Bands** are matched by name, whatever their order: by the sensor's own names (B02, B2, SR_B4), or by common names as
in STAC (blue, nir08, swir16; swir1 and swir2 too). Filters of bands that the images lack are left out. Bands that the
weights do not know start from the mean of the others' filters. One factor on the first layer keeps the expected size
of its response. One line in the log says what was matched, what is missing and what is new. Images without band
names, but with as many bands, are taken in order. No band in common is an error.

**Pixel values.** The model normalises each band by the statistics of its training chips, in whatever units these are:
nothing has to be rescaled. Most weights were trained on other values, such as digital numbers / 10000. The filters of
each band are therefore multiplied by the standard deviation that it had in pretraining (last table; where none is
published, one for all bands is estimated from the running variances of the first norm), and the running means of that
norm are set to 0.

**Files** are downloaded once into the cache of the Hugging Face hub (`HF_HOME`), from the commit that is named below,
and their SHA-256 is compared with the eight digits in the file's name. Without a network, download the file elsewhere
and pass it under its own name: `encoder_weights="folder/resnet50_sentinel2_all_moco-df8b932e.pth"`; its bands are
then known as well. No file is run as code. A local `.safetensors` file of your own may name its bands in its
metadata, `{"bands": "blue,green,red,nir"}`, and is then matched in the same way; it is taken to have been trained on
standardised bands. So are saved models, by their band names.

**Licences** are those that torchgeo's documentation states. Read them before you publish a model that starts from
these weights.
"""

BANDS = """
## Bands

| sensor | bands, with their common names |
|---|---|
"""


def page() -> str:
    """Return the whole page."""
    header, *rows = weights_table(WEIGHT_SETS)
    parts = [INTRODUCTION, "\n## The sets\n\n", table(header, rows), BANDS]
    parts += [f"| {sensor} | {bands(sensor)} |\n" for sensor in SENSORS]
    source = [
        (row.name, row.backbone, row.scale, std(row), f"[{row.file}]({row.url})", paper(row)) for row in WEIGHT_SETS
    ]
    parts += ["\n## Sources\n\n", table(("Name", "Backbone", "Trained on", "Deviations", "File", "Paper"), source)]
    return "".join(parts)


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, ("---",) * len(header), *rows))


def bands(sensor: str) -> str:
    """Return the bands of a sensor in words."""
    return ", ".join(f"{band} ({', '.join(names)})" if names else band for band, names in SENSORS[sensor].items())


def std(row: WeightSet) -> str:
    """Return the standard deviations of a set in words."""
    return " ".join(f"{each:.4g}" for each in row.std) or "estimated"


def paper(row: WeightSet) -> str:
    """Return a link to the paper."""
    number = row.paper.removeprefix("arxiv:")
    return f"[{number}](https://arxiv.org/abs/{number})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
