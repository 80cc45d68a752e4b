"""The twin of a job's folder in an object store, by which machines without a shared disk make one map.

It lies beside the output as `.partial-NAME` does on a disk, and holds job.json, the finished parts, and for the workers
of a cluster the model and the job. Another machine goes on from it. All is done in local copies, as on a disk.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rasterio.io import MemoryFile

from geopsp.core import object_store
from geopsp.core.addresses import address_of, local_path
from geopsp.core.documents import DocumentError, parse_json
from geopsp.core.object_store import is_store
from geopsp.core.remote_input import fetch_file, fetch_folder
from geopsp.core.run_state import read_state
from geopsp.errors import OutputError
from geopsp.inference.job import KEY_TAG, MapJob, key_of_raster
from geopsp.inference.job_folder import WORK_FOLDER, JobState
from geopsp.raster.zarr_store import METADATA, attribute_of, is_zarr

DOWNLOADS = 4
"""Parts that are downloaded at a time."""

HEADER_BYTES = 4 * 2**20
"""Of a raster, of which the tags are read."""

STATE, PARTS, MODEL = "job.json", "parts", "model"


class JobStore:
    """The twin of a job's folder; of a job on a disk it does nothing."""

    def __init__(self, job: MapJob) -> None:
        address = address_of(job.folder)
        self._job, self._address = job, address if address and is_store(address) else None

    @property
    def _work(self) -> str:
        """The name of the folder of this key and these parts in the twin."""
        return self._job.model_folder.parent.name

    def fetch_state(self) -> None:
        """Download job.json of the same job, unless there is a local copy: in its parts the job goes on."""
        path = self._job.folder / STATE
        if self._address is None or read_state(path, JobState).get("key") == self._job.key:
            return
        address = f"{self._address}/{STATE}"
        file, found = object_store.stat(address), None
        with suppress(DocumentError):
            found = parse_json(object_store.read_start(address, file.size)) if file and file.size else None
        if isinstance(found, dict) and found.get("key") == self._job.key:
            object_store.download(address, path)

    def fetch(self) -> None:
        """Download finished parts; what another job left is removed.

        Raises:
            OutputError: if it holds files of others, or the store refuses.
        """
        if self._address is None:
            return
        self.fetch_state()
        found = object_store.find(self._address)
        if foreign := sorted(name for name in found if not WORK_FOLDER.matches(name)):
            raise OutputError(
                f"{self._address} contains files that geopsp did not write ({foreign[0]}), so it is not replaced. "
                "Move them elsewhere, or choose another name."
            )
        if read_state(self._job.folder / STATE, JobState).get("key") != self._job.key:
            object_store.delete([f"{self._address}/{name}" for name in found])
            return
        self._download([name for name in found if name.startswith(f"{self._work}/{PARTS}/")])

    def begin(self) -> None:
        """Upload job.json."""
        self._upload(self._job.folder / STATE)

    def upload_model(self) -> None:
        """Upload the model, for workers."""
        if self._address is not None:
            for path in sorted(each for each in self._job.model_folder.rglob("*") if each.is_file()):
                self._upload(path)

    def fetch_model(self) -> None:
        """Download job.json and the model, on a worker."""
        if self._address is not None:
            self._download_one(STATE)  # one that is here may be of an earlier job
            self._download(
                [name for name in object_store.find(self._address) if name.startswith(f"{self._work}/{MODEL}/")]
            )
            (self._job.model_folder.parent / PARTS).mkdir(exist_ok=True)

    def has(self, number: int) -> bool:
        """Return whether the files of a part are there."""
        return self._address is not None and all(
            object_store.stat(str(address_of(path))) is not None for path in self._part_paths(number)
        )

    def upload_part(self, number: int) -> None:
        """Upload the files of a part.

        Raises:
            OutputError: if the store refuses; finished parts stay.
        """
        for path in self._part_paths(number):
            self._upload(path)

    def fetch_part(self, number: int) -> None:
        """Download the files of a part."""
        if self._address is not None:
            for path in self._part_paths(number):
                if not path.exists():
                    object_store.download(str(address_of(path)), path)

    def remove_local_part(self, number: int) -> None:
        """Remove the local copies of a part's files, on a worker."""
        if self._address is not None:
            for path in self._part_paths(number):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the twin; `job.json` goes last, so that an interrupted removal can be recognised."""
        if self._address is not None:
            names = [name for name in object_store.find(self._address) if WORK_FOLDER.matches(name)]
            object_store.delete([f"{self._address}/{name}" for name in sorted(names, key=lambda name: name == STATE)])

    def remove_if_empty(self) -> None:
        """Remove the twin if it holds no part to resume from; the error of the map counts more than its own."""
        if self._address is not None and not self._job.folder.exists():
            with suppress(OutputError):
                if not any(f"/{PARTS}/" in name for name in object_store.find(self._address)):
                    self.clear()

    def _part_paths(self, number: int) -> list[Path]:
        return [self._job.part_path(raster, number) for raster in self._job.rasters]

    def _upload(self, path: Path) -> None:
        if self._address is not None:
            object_store.upload(path, str(address_of(path)))

    def _download(self, names: list[str]) -> None:
        """Download files of the twin that have no local copy."""
        missing = [name for name in names if not (self._job.folder / name).exists()]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            list(pool.map(self._download_one, missing))

    def _download_one(self, name: str) -> None:
        object_store.download(f"{self._address}/{name}", self._job.folder / name)


class PartUploads:
    """Uploads of parts while the next ones are made."""

    def __init__(self, store: JobStore, pool: Executor | None) -> None:
        """Take the twin, and the threads that upload; None: the parts are uploaded at once."""
        self._store, self._pool = store, pool
        self._running: list[Future[None]] = []

    def add(self, number: int) -> None:
        """Upload a part.

        Raises:
            OutputError: if this or an earlier one failed.
        """
        if self._pool is None:
            self._store.upload_part(number)
            return
        self._running.append(self._pool.submit(self._store.upload_part, number))
        for upload in [each for each in self._running if each.done()]:
            self._running.remove(upload)
            upload.result()

    def wait(self) -> None:
        """Wait for all uploads.

        Raises:
            OutputError: if one failed.
        """
        for upload in self._running:
            upload.result()


def is_uploaded(job: MapJob) -> bool:
    """Return whether the rasters of a job are at their addresses, made by the same job; False of one on a disk."""
    addresses = raster_addresses(job)
    if not all(address is not None and is_store(address) for address in addresses):
        return False
    return all(_key_at(str(address)) == job.key for address in addresses)


def _key_at(address: str) -> str | None:
    """Return the key of the job that made a raster, which is read without the cache of GDAL."""
    if is_zarr(Path(address)):
        return _key_of_zarr(address)
    if object_store.stat(address) is None:
        return None
    with MemoryFile(object_store.read_start(address, HEADER_BYTES)) as start:
        return key_of_raster(start.name)


def _key_of_zarr(address: str) -> str | None:
    found = object_store.stat(f"{address}/{METADATA}")
    if found is None:
        return None
    with suppress(DocumentError):
        content = parse_json(object_store.read_start(f"{address}/{METADATA}", found.size))
        return attribute_of(content, "probabilities", KEY_TAG)
    return None


def fetch_rasters(job: MapJob) -> None:
    """Download the rasters of a finished job, to make polygons or an Item of them."""
    for raster in job.rasters:
        if is_zarr(raster.path):
            fetch_folder(raster.path)
        else:
            fetch_file(raster.path)


def on_this_machine(job: MapJob, addresses: list[str | None]) -> MapJob:
    """Return a job of another machine with the local copies of this one.

    Args:
        job: From the other machine.
        addresses: Of its rasters; None for those on a disk.
    """
    rasters = [
        raster if address is None else replace(raster, path=local_path(address))
        for raster, address in zip(job.rasters, addresses, strict=True)
    ]
    return replace(job, rasters=tuple(rasters))


def raster_addresses(job: MapJob) -> list[str | None]:
    """Return the addresses of a job's rasters; None for those on a disk."""
    return [address_of(raster.path) for raster in job.rasters]
