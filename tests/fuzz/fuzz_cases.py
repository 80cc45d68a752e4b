"""Which files are damaged how, for which commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fuzz.fuzz_mutations import (
    ARRAY,
    BYTES,
    CHECKPOINT,
    FILES,
    GPKG,
    JSON,
    JSON_LINES,
    PARQUET,
    SIGNED_JSON,
    SIGNED_WEIGHTS,
    TEXT,
    TIFF,
    WEIGHTS,
    XML,
    Mutation,
)  # fmt: skip
from fuzz.fuzz_world import CHIPS, CUT, PREDICT, TRAIN


@dataclass(frozen=True)
class Command:
    """A command of the shell, run in a folder with copies of its inputs."""

    args: tuple[str, ...]
    needs: tuple[str, ...]
    """Files and folders that it reads."""

    out: str = ""
    """What it writes; "": nothing."""

    changes: tuple[str, ...] = ()
    """Inputs that it goes on writing."""

    until_error: bool = False
    """True if it goes on writing them until an error comes."""


def info(*paths: str) -> Command:
    return Command(("info", *paths), paths)


def chips(image: str = "s.tif", labels: str = "l.gpkg", *options: str, needs: tuple[str, ...] = ()) -> Command:
    cut = CHIPS if labels.startswith("l.") else CUT
    args = ("chips", image, "--labels", labels, "--out", "out/chips", *cut, *options)
    return Command(args, (image, labels, *needs), out="out/chips")


def train(folder: str, *options: str, needs: tuple[str, ...] = ()) -> Command:
    args = ("train", folder, "--out", "out/again", *TRAIN, "--epochs", "1", *options)
    return Command(args, (folder, *needs), out="out/again")


def predict(image: str = "s.tif", *options: str, needs: tuple[str, ...] = ()) -> Command:
    args = ("predict", "model", image, "--out", "out/map.tif", *PREDICT, *options)
    return Command(args, ("model", image, *needs), out="out/map.tif")


def polygonize(raster: str, *options: str, needs: tuple[str, ...] = ()) -> Command:
    return Command(("polygonize", raster, "--out", "out/p.gpkg", *options), (raster, *needs), out="out/p.gpkg")


EVALUATE = Command(
    ("evaluate", "model", "chips", "--json", "out/scores.json", "-q"), ("model", "chips"), "out/scores.json"
)
APPEND = Command(
    ("chips", "s.tif", "--labels", "l.gpkg", "--out", "chips", "--append", *CHIPS), ("s.tif", "l.gpkg", "chips"),
    changes=("chips/",),
)  # fmt: skip
RESUME = Command(
    ("train", "chips", "--out", "out/again", "--run", "run", "--resume", *TRAIN),
    ("chips", "run"),
    "out/again",
    ("run/",),
    until_error=True,
)


@dataclass(frozen=True)
class Target:
    """Files of one format, and the commands that read them."""

    files: tuple[str, ...]
    commands: Mapping[str, Command]
    mutations: Mapping[str, Mutation]
    exact: bool = False
    """True if a checksum protects them: what still comes out is what came out before."""

    own: Mapping[str, Mutation] = field(default_factory=dict)
    """Mutations of what the format means, drawn as often as all of `mutations`."""


def _half(command: Command, name: str) -> Command:
    return Command(command.args, (*command.needs, "half"), command.out, (f"out/.partial-{name}", f"out/{name}"))


def _vector(name: str) -> dict[str, Command]:
    return {
        "info": info(name),
        "chips": chips("s.tif", name),
        "aoi": chips("s.tif", "l.gpkg", "--aoi", name, needs=(name,)),
        "predict": predict("s.tif", "--aoi", name, needs=(name,)),
    }


def _image(name: str, *needs: str) -> dict[str, Command]:
    return {"info": info(name), "chips": chips(name, needs=needs), "predict": predict(name, needs=needs)}


def _codes(name: str, *needs: str) -> dict[str, Command]:
    return {"labels": chips("s.tif", name, needs=needs), "polygonize": polygonize(name, needs=needs)}


CHIP_COMMANDS = {"info": info("chips"), "train": train("chips"), "evaluate": EVALUATE, "append": APPEND}
MODEL_COMMANDS = {
    "info": info("model"), "evaluate": EVALUATE, "predict": predict(),
    "pretrained": train("chips", "--pretrained", "model", needs=("model",)),
}  # fmt: skip
ARCGIS_COMMANDS = {"info": info("arcgis"), "train": train("arcgis")}
SIDECARS = ("map.qml", "map.tif.aux.xml")
SHAPEFILE = ("l.shp", "l.shx", "l.dbf", "l.prj", "l.cpg")

TARGETS: dict[str, Target] = {
    "tiff": Target(("s.tif",), _image("s.tif"), BYTES, own=TIFF),
    "tiff-plain": Target(("plain.tif",), _image("plain.tif"), BYTES, own=TIFF),
    "cog": Target(("cog.tif",), _image("cog.tif"), BYTES, own=TIFF),
    "map": Target(
        ("map.tif",),
        {
            **_codes("map.tif"),
            "info": info("map.tif"),
            "simplify": polygonize("map.tif", "--simplify", "3", "--min-area", "40"),
        },
        BYTES,
        own=TIFF,
    ),
    "confidence": Target(
        ("confidence.tif",),
        {"polygonize": polygonize("map.tif", "--confidence", "confidence.tif", needs=("confidence.tif",))},
        BYTES,
        own=TIFF,
    ),
    "labels-tiff": Target(("codes.tif",), _codes("codes.tif"), BYTES, own=TIFF),
    "png": Target(
        ("codes.png", "codes.wld", "codes.png.aux.xml"),
        {**_codes("codes.png", "codes.wld", "codes.png.aux.xml"), "info": info("codes.png")},
        BYTES,
    ),
    "mask-png": Target(
        ("masks/a.png", "images/a.png", "images/a.png.aux.xml"),
        {
            "info": info("images", "masks"),
            "chips": chips("images", "masks", "--mask-classes", "classes.csv", needs=("classes.csv",)),
        },
        BYTES,
    ),
    "mask-csv": Target(
        ("classes.csv",),
        {"chips": chips("images", "masks", "--mask-classes", "classes.csv", needs=("classes.csv",))},
        BYTES,
        own=TEXT,
    ),
    "mask-json": Target(
        ("classes.json",),
        {"chips": chips("images", "masks", "--mask-classes", "classes.json", needs=("classes.json",))},
        BYTES,
        own=JSON,
    ),
    "mapping": Target(
        ("mapping.yaml",),
        {"chips": chips("s.tif", "l.gpkg", "--class-mapping", "mapping.yaml", needs=("mapping.yaml",))},
        BYTES,
        own=TEXT,
    ),
    "vrt": Target(("s.vrt",), _image("s.vrt", "s.tif"), BYTES, own=XML),
    "sidecar": Target(
        SIDECARS,
        {**_codes("map.tif", *SIDECARS), "info": Command(("info", "map.tif"), ("map.tif", *SIDECARS))},
        BYTES,
        own=XML,
    ),
    "stac": Target(("item.json",), _image("item.json", "s.tif"), BYTES, own=JSON),
    "gpkg": Target(("l.gpkg",), _vector("l.gpkg"), BYTES, own=GPKG),
    "geojson": Target(("l.geojson",), _vector("l.geojson"), BYTES, own=JSON | {"word": TEXT["word"]}),
    "fgb": Target(("l.fgb",), _vector("l.fgb"), BYTES),
    "shapefile": Target(
        SHAPEFILE,
        {
            "info": Command(("info", "l.shp"), SHAPEFILE),
            "chips": chips("s.tif", "l.shp", needs=SHAPEFILE),
            "aoi": chips("s.tif", "l.gpkg", "--aoi", "l.shp", needs=SHAPEFILE),
        },
        BYTES,
    ),
    "csv": Target(("l.csv",), {"info": info("l.csv")}, BYTES, own=TEXT),
    "parquet": Target(("l.parquet",), _vector("l.parquet"), BYTES, own=PARQUET),
    "chips-json": Target(("chips/chips.json",), CHIP_COMMANDS, BYTES, own=JSON),
    "chips-parquet": Target(("chips/chips.parquet",), CHIP_COMMANDS, BYTES, own=PARQUET),
    "chips-tiff": Target(
        ("chips/images/000003.tif", "chips/labels/000005.tif"),
        {name: CHIP_COMMANDS[name] for name in ("train", "evaluate")},
        BYTES | FILES,
        own=TIFF,
    ),
    "chips-png": Target(("pngs/images/000003.png", "pngs/labels/000005.png"), {"train": train("pngs")}, BYTES | FILES),
    "arcgis-text": Target(("arcgis/map.txt",), ARCGIS_COMMANDS, BYTES | FILES, own=TEXT),
    "arcgis-json": Target(
        ("arcgis/esri_model_definition.emd", "arcgis/esri_accumulated_stats.json"),
        ARCGIS_COMMANDS,
        BYTES | FILES,
        own=JSON,
    ),
    "arcgis-tiff": Target(
        ("arcgis/images/000001.tif", "arcgis/labels/000002.tif"), ARCGIS_COMMANDS, BYTES | FILES, own=TIFF
    ),
    "arcgis-model": Target(("parcels.emd",), {"info": info("parcels.emd")}, BYTES | FILES, own=JSON),
    "arcgis-package": Target(("parcels.dlpk",), {"info": info("parcels.dlpk")}, BYTES | FILES),
    "model": Target(("model/model.json", "model/weights.safetensors"), MODEL_COMMANDS, BYTES | FILES, exact=True),
    "model-json": Target(("model/model.json",), MODEL_COMMANDS, SIGNED_JSON),
    "weights": Target(("model/weights.safetensors",), MODEL_COMMANDS, SIGNED_WEIGHTS),
    "history": Target(("model/history.csv",), {"info": info("model"), "predict": predict()}, BYTES, own=TEXT),
    "pretrained": Target(
        ("model/weights.safetensors",),
        {"train": train("chips", "--pretrained", "model/weights.safetensors", needs=("model",))},
        BYTES,
        own=WEIGHTS,
    ),
    "run-json": Target(("run/run.json",), {"resume": RESUME}, BYTES | FILES, own=JSON),
    "checkpoint": Target(("run/last.ckpt", "run/best.ckpt"), {"resume": RESUME}, BYTES | FILES, own=CHECKPOINT),
    "encoder": Target(
        ("encoder.pth",),
        {"train": train("chips", "--weights", "encoder.pth", needs=("encoder.pth",))},
        BYTES,
        own=CHECKPOINT,
    ),
    "job-json": Target(
        ("half/.partial-map.tif/job.json",),
        {"resume": _half(predict(), "map.tif")},
        BYTES | FILES,
        own=JSON,
        exact=True,
    ),
    "part": Target(
        ("half/.partial-map.tif/*/parts/*",), {"resume": _half(predict(), "map.tif")}, BYTES | FILES, exact=True
    ),
    "ledger": Target(
        ("half/.partial-chips/ledger.jsonl",), {"resume": _half(chips(), "chips")}, BYTES | FILES, own=JSON_LINES
    ),
    "half-chips": Target(
        ("half/.partial-chips/images/000001.tif", "half/.partial-chips/labels/000001.tif"),
        {"resume": _half(chips(), "chips")},
        BYTES | FILES,
    ),
    "cache-json": Target(
        ("cache/*/cache.json",),
        {"train": Command(train("chips", "--cache", "cache").args, ("chips", "cache"), "out/again", ("cache/",))},
        BYTES | FILES,
        own=JSON,
    ),
    "cache-array": Target(
        ("cache/*/image.npy", "cache/*/valid.npy", "cache/*/codes.npy"),
        {"train": Command(train("chips", "--cache", "cache").args, ("chips", "cache"), "out/again", ("cache/",))},
        BYTES | FILES,
        own=ARRAY,
    ),
}


@dataclass(frozen=True)
class Case:
    """One damage, and the command that meets it."""

    target: str
    mutation: str
    seed: int
    command: str

    def __str__(self) -> str:
        return f"{self.target}-{self.mutation}-{self.seed}-{self.command}"


def cases(per_target: int) -> Iterator[Case]:
    """Yield so many cases of each target, half of them of its own mutations; more are the same and others."""
    for name, target in TARGETS.items():
        commands = list(target.commands)
        kinds = [list(target.mutations), list(target.own) or list(target.mutations)]
        for number in range(per_target):
            names, turn = kinds[number % 2], number // 2
            mutation, command = names[turn % len(names)], commands[(number + turn // len(names)) % len(commands)]
            yield Case(name, mutation, number, command)
