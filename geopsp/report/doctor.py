"""What this installation can do: versions, devices, formats, caches and what is missing, to paste into a bug report.

Nothing here fails: what cannot be found out is told as such, since that is what such reports are for.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from geopsp.core.escape import printable_lines
from geopsp.core.text import format_error, shorten

PACKAGES = {
    "learning": ("torch", "torchvision", "lightning", "segmentation-models-pytorch", "timm", "safetensors"),
    "onnx": ("onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino"),
    "data": ("numpy", "numba", "pandas", "geopandas", "shapely", "pyarrow", "pydantic", "pystac", "huggingface-hub"),
    "cluster": ("distributed", "dask"),
}
"""Packages whose versions are told, by what they are for."""

RASTER_DRIVERS = ("GTiff", "COG", "VRT", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "HFA", "netCDF", "HDF5", "Zarr")

VECTOR_DRIVERS = ("GPKG", "GeoJSON", "FlatGeobuf", "ESRI Shapefile", "Parquet", "Arrow", "OpenFileGDB", "KML")
"""Drivers of GDAL that users ask about; geopsp writes GeoParquet by itself."""

FEATURES = {
    "torch": ("train, evaluate, and predict with a model folder", "pip install geopsp"),
    "onnxruntime": ("predict with an ONNX file", 'pip install "geopsp[onnx]"'),
    "onnx": ("export to ONNX and ArcGIS Pro", 'pip install "geopsp[onnx]"'),
    "onnxscript": ("export to ONNX and ArcGIS Pro", 'pip install "geopsp[onnx]"'),
    "tensorboard": ("train --tensorboard", 'pip install "geopsp[tensorboard]"'),
    "distributed": ("chips, predict and polygonize --scheduler", "pip install distributed"),
    "huggingface_hub": ("models named hf://OWNER/NAME", "pip install huggingface_hub"),
    "ipywidgets": ("progress bars in notebooks", 'pip install "geopsp[notebook]"'),
}
"""What needs a package, and how to install it, by the name that is imported."""

VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "HF_HUB_OFFLINE", "HF_ENDPOINT",
    "HF_HOME", "TORCH_HOME", "GDAL_DATA", "PROJ_DATA", "PROJ_LIB", "PROJ_NETWORK", "GDAL_CACHEMAX", "GEOPSP_TIMEOUT",
    "GEOPSP_SYNC",
)  # fmt: skip
"""Variables of the environment that change what geopsp does; none of them is secret."""

MAX_LINE = 240
"""Characters of a line."""


def diagnose() -> dict[str, Any]:
    """Return all facts for JSON; those that cannot be found out are texts that begin with "cannot"."""
    return {
        "geopsp": _version("geopsp") or "not installed",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "machine": _tried(_machine),
        "packages": {kind: _versions(names) for kind, names in PACKAGES.items()},
        "torch": _tried(_torch) if find_spec("torch") else "not installed",
        "onnxruntime": _tried(_onnxruntime) if find_spec("onnxruntime") else "not installed",
        "raster": _tried(_raster),
        "vector": _tried(_vector),
        "projections": _tried(_projections),
        "caches": {name: _tried(find) for name, find in CACHES.items()},
        "missing": {
            name: {"needed for": purpose, "install": command}
            for name, (purpose, command) in FEATURES.items()
            if find_spec(name) is None
        },
        "environment": {name: _shown(os.environ[name]) for name in VARIABLES if name in os.environ},
    }


def describe_diagnosis(facts: Mapping[str, Any]) -> str:
    """Return the facts as at most twenty lines."""
    lines = [
        f"geopsp {facts['geopsp']}, Python {facts['python']}, {facts['system']}",
        f"machine     {_words(facts['machine'])}",
        *(f"{kind:<11} {_words(found)}" for kind, found in facts["packages"].items() if found),
        *_device_lines(facts["torch"]),
        f"runtime     ONNX Runtime: {_words(facts['onnxruntime'])}",
        f"raster      {_words(facts['raster'])}",
        f"vector      {_words(facts['vector'])}",
        f"projections {_words(facts['projections'])}",
        *(f"{name:<11} {_words(found)}" for name, found in facts["caches"].items()),
    ]
    missing = [f"{name} ({entry['needed for']}: {entry['install']})" for name, entry in facts["missing"].items()]
    lines.append(f"missing     {'; '.join(missing) or 'nothing'}")
    if facts["environment"]:
        lines.append(f"set         {', '.join(f'{name}={value}' for name, value in facts['environment'].items())}")
    return printable_lines(shorten(line, MAX_LINE * 3 if line.startswith("missing") else MAX_LINE) for line in lines)


def _device_lines(found: Any) -> list[str]:
    """Return a line for torch and one for each of the first GPUs and the CPU."""
    if not isinstance(found, Mapping):
        return [f"devices     torch: {found}"]
    devices = found["devices"]
    shown, more = devices[:2] if len(devices) > 3 else devices, len(devices) - 3
    lines = [_device(each) for each in shown]
    lines += [f"and {more + 1} more"] if len(devices) > 3 else []
    return [f"device      torch for {found['build']}: {lines[0]}", *(f"device      {line}" for line in lines[1:])]


def _device(found: Mapping[str, Any]) -> str:
    memory = f", {found['memory'] / 2**30:.0f} GiB ({found['free'] / 2**30:.0f} free)" if "memory" in found else ""
    capability = f", capability {found['capability']}" if "capability" in found else ""
    fast = ", ".join(found["fast"]) or "fp32 only"
    return f"{found['device']} {found['name']}{memory}{capability}, fast: {fast}"


def _words(found: Any) -> str:
    if isinstance(found, Mapping):
        return ", ".join(f"{name} {_words(value)}" for name, value in found.items())
    if isinstance(found, list | tuple):
        return " ".join(map(str, found)) or "none"
    return {True: "yes", False: "no"}.get(found, str(found)) if isinstance(found, bool) else str(found)


def _tried(find: Callable[[], Any]) -> Any:
    """Return what a function finds, or why it cannot: a library that does not load is what is looked for."""
    try:
        return find()
    except Exception as error:  # noqa: BLE001 (whatever a broken installation raises)
        return _shown(f"cannot be used: {type(error).__name__}: {format_error(error)}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    return {name: found for name in names if (found := _version(name)) is not None}


def _machine() -> dict[str, Any]:
    import psutil

    from geopsp.core.parallel import cpu_count

    memory = psutil.virtual_memory()
    return {
        "CPU cores": cpu_count(),
        "memory": f"{memory.total / 2**30:.1f} GiB ({memory.available / 2**30:.1f} available)",
    }


def _torch() -> dict[str, Any]:
    from geopsp.models.device_facts import device_facts, torch_build

    return {"build": torch_build(), "devices": device_facts()}


def _onnxruntime() -> list[str]:
    from geopsp.models.onnx_file import available_providers

    return available_providers()


def _raster() -> dict[str, Any]:
    import rasterio

    with rasterio.Env() as env:
        drivers = env.drivers()
    has = [name for name in RASTER_DRIVERS if name in drivers]
    lacks = [name for name in RASTER_DRIVERS if name not in drivers]
    return {"rasterio": rasterio.__version__, "GDAL": rasterio.__gdal_version__, "has": has, "lacks": lacks}


def _vector() -> dict[str, Any]:
    from geopsp.vector.formats import gdal_drivers

    gdal, drivers = gdal_drivers()
    has = [f"{name}{'' if 'w' in drivers[name] else ' (read only)'}" for name in VECTOR_DRIVERS if name in drivers]
    lacks = [name for name in VECTOR_DRIVERS if name not in drivers]
    return {"pyogrio": _version("pyogrio"), "GDAL": gdal, "has": has, "lacks": lacks}


def _projections() -> dict[str, Any]:
    import pyproj

    datadir, network = (import_module(f"pyproj.{name}") for name in ("datadir", "network"))
    folders = [Path(folder) for folder in (*datadir.get_data_dir().split(os.pathsep), datadir.get_user_data_dir())]
    grids = sum(len(list(folder.glob("*.tif"))) for folder in folders if folder.is_dir())
    return {
        "pyproj": pyproj.__version__,
        "PROJ": pyproj.proj_version_str,
        "grids": grids,
        "network": network.is_network_enabled(),
        "data": _shown(datadir.get_data_dir()),
    }


def _numba_cache() -> str:
    from geopsp.core.jit import cache_folder

    folder = cache_folder()
    return "none can be written: functions are compiled in each process" if folder is None else _folder(Path(folder))


def _hub_cache() -> str:
    from huggingface_hub import constants

    return _folder(Path(constants.HF_HUB_CACHE))


def _torch_cache() -> str:
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return _folder(Path(home).expanduser() / "hub")


def _temporary() -> str:
    return _folder(Path(tempfile.gettempdir()))


CACHES: Mapping[str, Callable[[], str]] = {
    "numba cache": _numba_cache,
    "hub cache": _hub_cache,
    "torch cache": _torch_cache,
    "temporary": _temporary,
}
"""Folders that geopsp and its libraries write to, beside outputs."""


def _folder(path: Path) -> str:
    """Return a folder with whether it exists and can be written."""
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    state = "writable" if os.access(existing, os.W_OK) else "NOT writable"
    return f"{_shown(str(path))} ({state}{'' if existing == path else ', not made yet'})"


def _shown(text: str) -> str:
    """Return a text without the names of the user and of the home folder, and without passwords in addresses."""
    text = re.sub(r"//[^/@\s]*@", "//", text)
    home = str(Path.home())
    text = text.replace(home, "~") if len(home) > 1 else text
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|$)", "USER", text) if user else text
