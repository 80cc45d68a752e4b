"""Published encoder weights for satellites: names, bands, scale of pixel values, licence and source, in one table.

Source: torchgeo, torchgeo/models/resnet.py, swin.py and docs/api/weights/*.csv at commit 65507dc (2025-09-11).
A new set is one row in `WEIGHT_SETS`. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geopsp.models.spectral_bands import ETM, OLI, SENSORS, SENTINEL1, SENTINEL2, TM


@dataclass(frozen=True, slots=True)
class WeightSet:
    """Encoder weights that somebody published."""

    name: str
    """For `encoder_weights`; weights of one name for several backbones are several sets."""

    backbone: str
    """Name of the encoder that they fit."""

    sensor: str
    """One of `spectral_bands.SENSORS`."""

    bands: tuple[str, ...]
    """Names of the bands of the first layer, in its order."""

    scale: str
    """What became of pixel values before the encoder saw them in pretraining, for the reader."""

    licence: str
    """As torchgeo's documentation states it."""

    repository: str
    """On the Hugging Face hub."""

    revision: str
    """Commit in the repository."""

    file: str
    """Name of the file; it ends in the first eight digits of its SHA-256."""

    paper: str
    """Where it is described."""

    std: tuple[float, ...] = ()
    """Standard deviation of each band after `scale`; (): not published."""

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{self.file}"

    @property
    def sha256(self) -> str:
        """The first eight hexadecimal digits of the file's SHA-256."""
        return self.file.rpartition("-")[2].partition(".")[0]


S2_STD = {
    "B01": 791.0, "B02": 854.3, "B03": 878.7, "B04": 1144.9, "B05": 1127.5, "B06": 1164.2, "B07": 1276.0,
    "B08": 1249.5, "B8A": 1345.9, "B09": 577.5, "B10": 47.5, "B11": 1340.0, "B12": 1142.9,
}  # fmt: skip
"""Standard deviation of Sentinel-2's digital numbers (reflectance x 10000) over SSL4EO-S12: torchgeo's `_std_s2`.

They stand in for the other sets of digital numbers / 10000, which published none.
"""

S2_ALL = tuple(SENSORS[SENTINEL2])
S2_RGB = ("B04", "B03", "B02")
S2_L2A = tuple(band for band in S2_ALL if band != "B10")
S2_SATLAS = (*S2_RGB, "B05", "B06", "B07", "B08", "B11", "B12")
SSL4EO_S12, DECUR, SECO = "arxiv:2211.07044", "arxiv:2309.05300", "arxiv:2103.16607"
CC_BY = "CC-BY-4.0"


def _reflectance(
    name: str, backbone: str, bands: tuple[str, ...], licence: str, place: tuple[str, str, str], paper: str
) -> WeightSet:
    """Return a set for Sentinel-2's digital numbers / 10000."""
    std = tuple(S2_STD[band] / 10000 for band in bands)
    return WeightSet(name, backbone, SENTINEL2, bands, "digital numbers / 10000", licence, *place, paper, std)


def _seco(backbone: str, revision: str, checksum: str) -> WeightSet:
    repository, file = f"torchgeo/{backbone}_sentinel2_rgb_seco", f"{backbone}_sentinel2_rgb_seco-{checksum}.pth"
    scale = "percentiles of each band to 0..1, x 255, then ImageNet's mean and standard deviation"
    return WeightSet("seco-s2-rgb", backbone, SENTINEL2, S2_RGB, scale, "Apache-2.0", repository, revision, file, SECO)


def _radar(name: str, place: tuple[str, str, str], licence: str, paper: str) -> WeightSet:
    scale, bands = "dB, (VV + 12.59) / 5.26 and (VH + 20.26) / 5.91", tuple(SENSORS[SENTINEL1])
    return WeightSet(name, "resnet50", SENTINEL1, bands, scale, licence, *place, paper, (1.0, 1.0))


LANDSAT = {
    "tm-toa": (TM, tuple(SENSORS[TM])),
    "etm-toa": (ETM, tuple(SENSORS[ETM])),
    "etm-sr": (ETM, ("B1", "B2", "B3", "B4", "B5", "B7")),
    "oli-toa": (OLI, tuple(SENSORS[OLI])),
    "oli-sr": (OLI, ("B1", "B2", "B3", "B4", "B5", "B6", "B7")),
}
"""Sensor and bands of SSL4EO-L's products: reflectance at the top of the atmosphere (toa), or at the surface (sr)."""


def _landsat(product: str, method: str, backbone: str, checksum: str) -> WeightSet:
    sensor, bands = LANDSAT[product]
    kind = product.replace("-", "_").replace("oli_toa", "oli_tirs_toa")
    return WeightSet(
        f"ssl4eo-l-{product}-{method}", backbone, sensor, bands, "8-bit reflectance / 255", "CC0-1.0",
        "torchgeo/ssl4eo_landsat", "1c88bb51b6e17a21dde5230738fa38b74bd74f76",
        f"{backbone}_landsat_{kind}_{method}-{checksum}.pth", "arxiv:2306.09424",
    )  # fmt: skip


def _satlas(images: str, colors: str, backbone: str, checksum: str) -> WeightSet:
    bands, name = (S2_SATLAS, f"satlas-s2-{images}") if colors == "ms" else (S2_RGB, f"satlas-s2-rgb-{images}")
    more = "; other bands digital numbers / 8160, at most 1" if colors == "ms" else ""
    return WeightSet(
        name, backbone, SENTINEL2, bands, f"8-bit true colour / 255{more}", "ODC-BY", "torchgeo/satlas",
        "081d6607431bf36bdb59c223777cbb267131b8f2", f"sentinel2_{backbone}_{images}_{colors}-{checksum}.pth",
        "arxiv:2211.15660",
    )  # fmt: skip


def _ssl4eo(name: str, backbone: str, bands: tuple[str, ...], revision: str, checksum: str) -> WeightSet:
    kind = "rgb" if bands == S2_RGB else "all"
    stem = f"{backbone}_sentinel2_{kind}_{name.rpartition('-')[2]}"
    return _reflectance(
        name, backbone, bands, CC_BY, (f"torchgeo/{stem}", revision, f"{stem}-{checksum}.pth"), SSL4EO_S12
    )


CLOSP = ("DarthReca/CLOSP-Visual", "3bb8677c21dac56bea2dd7baa08d7871272db440")

WEIGHT_SETS: tuple[WeightSet, ...] = (
    _ssl4eo("ssl4eo-s2-moco", "resnet18", S2_ALL, "5b8cddc9a14f3844350b7f40b85bcd32aed75918", "59bfdff9"),
    _ssl4eo("ssl4eo-s2-moco", "resnet50", S2_ALL, "da4f3c9dbe09272eb902f3b37f46635fa4726879", "df8b932e"),
    _ssl4eo("ssl4eo-s2-dino", "resnet50", S2_ALL, "d7f14bf5530d70ac69d763e58e77e44dbecfec7c", "d6c330e9"),
    _reflectance(
        "ssl4eo-s2-decur", "resnet50", S2_ALL, "Apache-2.0",
        ("torchgeo/decur", "eba7ae5945d482a4319be046d34b552db5dd9950", "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth"),
        DECUR,
    ),
    _ssl4eo("ssl4eo-s2-rgb-moco", "resnet18", S2_RGB, "e1c032e7785fd0625224cdb6699aa138bb304eec", "e3a335e3"),
    _ssl4eo("ssl4eo-s2-rgb-moco", "resnet50", S2_RGB, "efd9723b59a88e9dc1420dc1e96afb25b0630a3c", "2b57ba8b"),
    _radar(
        "ssl4eo-s1-moco",
        ("torchgeo/resnet50_sentinel1_all_moco", "e79862c667853c10a709bdd77ea8ffbad0e0f1cf",
         "resnet50_sentinel1_all_moco-906e4356.pth"),
        CC_BY, SSL4EO_S12,
    ),
    _radar(
        "ssl4eo-s1-decur",
        ("torchgeo/decur", "9328eeb90c686a88b30f8526ed757b4bc0f12027", "rn50_ssl4eo-s12_sar_decur_ep100-f0e69ba2.pth"),
        "Apache-2.0", DECUR,
    ),
    _seco("resnet18", "f8dcee692cf7142163b55a5c197d981fe0e717a0", "cefca942"),
    _seco("resnet50", "fbd07b02a8edb8fc1035f7957160deed4321c145", "018bf397"),
    _reflectance(
        "seco-eco-s2", "resnet50", S2_L2A, "MIT",
        ("torchgeo/seco-eco", "aea279ea46572cfca5876ac1f9d8d8595fcdeb3b",
         "resnet50_sentinel2_all_seco_eco-90ec322f.pth"),
        "arxiv:2504.18256",
    ),
    _reflectance(
        "closp-s2", "resnet50", S2_ALL, "OpenRAIL", (*CLOSP, "closp-rn_s2_encoder-183922a5.pth"), "arxiv:2507.10403"
    ),
    _reflectance(
        "geoclosp-s2", "resnet50", S2_ALL, "OpenRAIL", (*CLOSP, "geoclosp-rn_s2_encoder-94c37f4a.pth"),
        "arxiv:2507.10403",
    ),
    _satlas("mi", "ms", "resnet50", "da5413d2"),
    _satlas("mi", "ms", "resnet152", "fd35b4bb"),
    _satlas("si", "ms", "resnet50", "1f454cc6"),
    _satlas("si", "ms", "resnet152", "4500c6cb"),
    _satlas("mi", "rgb", "resnet50", "e79bb7fe"),
    _satlas("mi", "rgb", "resnet152", "67563ac5"),
    _satlas("si", "rgb", "resnet50", "45fc6972"),
    _satlas("si", "rgb", "resnet152", "f4d24c3c"),
    _landsat("tm-toa", "moco", "resnet18", "1c691b4f"),
    _landsat("tm-toa", "moco", "resnet50", "ba1ce753"),
    _landsat("tm-toa", "simclr", "resnet18", "d2d38ace"),
    _landsat("tm-toa", "simclr", "resnet50", "a1c93432"),
    _landsat("etm-toa", "moco", "resnet18", "bb88689c"),
    _landsat("etm-toa", "moco", "resnet50", "e9a84d5a"),
    _landsat("etm-toa", "simclr", "resnet18", "4d813f79"),
    _landsat("etm-toa", "simclr", "resnet50", "70b5575f"),
    _landsat("etm-sr", "moco", "resnet18", "4f078acd"),
    _landsat("etm-sr", "moco", "resnet50", "1266cde3"),
    _landsat("etm-sr", "simclr", "resnet18", "8e8543b4"),
    _landsat("etm-sr", "simclr", "resnet50", "e5d185d7"),
    _landsat("oli-toa", "moco", "resnet18", "a3002f51"),
    _landsat("oli-toa", "moco", "resnet50", "de7f5e0f"),
    _landsat("oli-toa", "simclr", "resnet18", "b0635cc6"),
    _landsat("oli-toa", "simclr", "resnet50", "030cebfe"),
    _landsat("oli-sr", "moco", "resnet18", "660e82ed"),
    _landsat("oli-sr", "moco", "resnet50", "ff580dad"),
    _landsat("oli-sr", "simclr", "resnet18", "7bced5be"),
    _landsat("oli-sr", "simclr", "resnet50", "94f78913"),
)  # fmt: skip
"""All sets. Sets whose file carries no checksum (SoftCon), or whose scale is not stated, are left out."""


def supported_weights(backbone: str | None = None) -> list[WeightSet]:
    """Return the published encoder weights for satellites, with their bands, scale, licence and source.

    ImageNet weights, which most backbones have, are not among them.

    Args:
        backbone: Only those that fit this encoder; tu-resnet50 takes those for resnet50.
    """
    plain = (backbone or "").removeprefix("tu-")
    return [row for row in WEIGHT_SETS if plain in {"", row.backbone}]


def weights_table(rows: Sequence[WeightSet]) -> list[tuple[str, ...]]:
    """Return the table of sets as text, a header first; backbones of one name are in one row."""
    by_name: dict[str, list[WeightSet]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    lines = [
        (name, ", ".join(row.backbone for row in same), same[0].sensor, " ".join(same[0].bands), same[0].licence)
        for name, same in by_name.items()
    ]
    return [("Name", "Backbones", "Sensor", "Bands", "Licence"), *lines]


def describe_weights(rows: Sequence[WeightSet]) -> str:
    """Return the table of sets for the shell, in aligned columns."""
    table = weights_table(rows)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
