"""What runs the network of a map: PyTorch, or ONNX Runtime. Each is chosen once, by the model that is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from geopsp.core.extras import require_torch
from geopsp.errors import OptionError
from geopsp.inference.options import EngineName, MapSettings, NetworkPrecision
from geopsp.inference.predictor import TilePredictor
from geopsp.inference.tile_ops import Device
from geopsp.models.onnx_file import OnnxModel, is_onnx, read_onnx

if TYPE_CHECKING:
    from geopsp.inference.job import MapJob
    from geopsp.models.saved_model import TrainedModel

MapModel: TypeAlias = "TrainedModel | OnnxModel"
"""A model that a map can be made with."""


class Engine(Protocol):
    """How an engine runs networks."""

    packages: tuple[str, ...]
    """Packages on whose version the last bit of a map may depend."""

    identity: tuple[str, ...]
    """Part of the keys of maps; empty for PyTorch, as it was the only one."""

    def pick_device(self, name: str | None) -> Device:
        """Return the device of that name; None: the best there is.

        Raises:
            ModelError, OptionError: if it cannot be used.
        """
        ...

    def device_name(self, device: Device) -> str:
        """Return the name of the device for messages."""
        ...

    def num_gpus(self) -> int:
        """Return the number of GPUs that it could use."""
        ...

    def precision(self, settings: MapSettings, device: Device) -> NetworkPrecision:
        """Return the precision in which the network runs.

        Raises:
            OptionError: if the settings ask for what it cannot do.
        """
        ...

    def compiles(self, settings: MapSettings, device: Device, num_tiles: int) -> bool:
        """Return whether the network is compiled for a map of so many tiles.

        Raises:
            OptionError: if the settings ask for what it cannot do.
        """
        ...

    def predictor(self, job: MapJob, model: Any, device: Device, *, batch_size: int, compiled: bool) -> TilePredictor:
        """Return the network as the job uses it."""
        ...

    def batch(self, job: MapJob, model: Any, device: Device) -> tuple[int, int]:
        """Return the tiles of a batch, and how many batches are computed at a time."""
        ...

    def batch_bytes(self, job: MapJob, model: Any, device: Device, batch_size: int) -> int:
        """Return the bytes that a batch takes, beside the weights."""
        ...

    def weight_bytes(self, model: Any) -> int:
        """Return the bytes of the weights."""
        ...

    def free_memory(self, device: Device) -> float:
        """Return the free bytes of the device's memory."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Write the model for workers on other machines."""
        ...

    def set_up_worker(self, device: Device) -> None:
        """Prepare a process in which tiles are computed in one thread."""
        ...


def engine_of(model: MapModel) -> Engine:
    """Return what runs a model."""
    return _engine("onnx" if isinstance(model, OnnxModel) else "torch")


def _engine(name: Literal["torch", "onnx"]) -> Engine:
    engine: Engine = import_module(f"geopsp.inference.{name}_engine").ENGINE
    return engine


WORKER_FILE = "model.onnx"
"""An ONNX model in the folder of a job."""


def load_for_worker(folder: Path) -> tuple[Engine, MapModel]:
    """Load what `Engine.save` wrote."""
    if (folder / WORKER_FILE).exists():
        return _engine("onnx"), read_onnx(folder / WORKER_FILE)
    from geopsp.models.saved_model import load_model

    return _engine("torch"), load_model(folder)


def engine_in(folder: Path) -> Engine:
    """Return the engine whose model lies in the folder of a job."""
    return _engine("onnx" if (folder / WORKER_FILE).exists() else "torch")


@contextmanager
def opened_model(model: MapModel | str | Path, engine: EngineName, tile_size: int | None) -> Iterator[MapModel]:
    """Open a model for an engine.

    Args:
        model: An open one, the folder of a saved one, or an ONNX file.
        engine: "auto" is ONNX Runtime for an ONNX file, else PyTorch.
        tile_size: Of the map; None: the model's own.

    Raises:
        InputNotFoundError, PackageError, ModelError: as the model is.
        OptionError: if the engine cannot run it, or is not installed.
    """
    if isinstance(model, str | Path) and is_onnx(model):
        if engine == "torch":
            raise OptionError(f"`engine` is 'torch', but {model} is an ONNX file. Leave the option out.")
        yield read_onnx(model)
        return
    if engine != "onnx":
        yield _with_torch(model)
        return
    if isinstance(model, OnnxModel):
        yield model
        return
    with TemporaryDirectory(prefix="geopsp-onnx-") as folder:
        exported = _exported(model, Path(folder) / WORKER_FILE, tile_size)
    yield exported


def _with_torch(model: MapModel | str | Path) -> MapModel:
    if not isinstance(model, str | Path):
        return model
    from geopsp.models.manifest import read_manifest

    read_manifest(Path(model))  # before torch is loaded
    require_torch("A map with the folder of a saved model", "use a model that `geopsp export` wrote as an ONNX file")
    from geopsp.models.saved_model import load_model

    return load_model(model)


def _exported(model: Any, path: Path, tile_size: int | None) -> OnnxModel:
    """Export a model with a network of PyTorch, and read the file."""
    require_torch("Exporting a saved model to ONNX")
    from geopsp.export.export_model import export_model

    found = read_onnx(export_model(model, path, tile_size=tile_size, calibrated=False))
    found.exported_here = True
    return found
