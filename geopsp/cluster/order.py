"""A job on its way to the workers of a Dask cluster: each worker opens it once, and a task only names it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopsp
from geopsp.cluster.workers import other_version, worker_name
from geopsp.core import object_store
from geopsp.core.addresses import address_of, shown
from geopsp.errors import OutputError


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker needs to open a job."""

    digest: str
    """SHA-256 of the job as bytes: a worker opens nothing else."""

    version: str
    """Version of the client's geopsp."""

    path: Path | None = None
    """The file that holds the job; None: `content` does."""

    address: str | None = None
    """Of the file in an object store, where the workers find it instead."""

    content: bytes = field(default=b"", repr=False, compare=False)

    @property
    def is_withdrawn(self) -> bool:
        """True if the file is gone: its folder may be another job's by now."""
        if self.address is not None:
            return object_store.stat(self.address) is None
        return self.path is not None and not self.path.exists()

    def open(self, output: str) -> Any:
        """Run on a worker: return the job.

        Args:
            output: What is made in the folder of the file, e.g. "map", for messages.

        Raises:
            OptionError: if this worker has another version of geopsp.
            OutputError: if it does not see the file.
        """
        if self.version != geopsp.__version__:
            raise other_version(worker_name(), geopsp.__version__, self.version)
        content = self._read()
        if hashlib.sha256(content).hexdigest() != self.digest:
            folder = None if self.path is None else shown(self.path.parent)
            raise OutputError(
                f"{worker_name()} does not see {folder}, where the {output} is made. Choose an output on a disk that "
                "all machines share under the same path."
            )
        import cloudpickle

        return cloudpickle.loads(zlib.decompress(content))

    def _read(self) -> bytes:
        """Return the job as bytes; none if the file is not there."""
        if self.address is not None:
            file = object_store.stat(self.address)
            return b"" if file is None else object_store.read_start(self.address, file.size)
        try:
            return self.content if self.path is None else self.path.read_bytes()
        except OSError:
            return b""


def order_in_memory(job: Any) -> Order:
    """Return an order that holds the job itself; small jobs only, as it passes through the scheduler."""
    content = _encode(job)
    return Order(hashlib.sha256(content).hexdigest(), geopsp.__version__, content=content)


@contextmanager
def order_file(job: Any, path: Path) -> Iterator[Order]:
    """Write a job to a file for the time of the block.

    Args:
        job: What `Order.open` returns.
        path: In a folder that all workers see, or that stands for one in an object store; absolute.
    """
    content, address = _encode(job), address_of(path)
    try:
        path.write_bytes(content)
        if address is not None:
            object_store.upload(path, address)
        yield Order(hashlib.sha256(content).hexdigest(), geopsp.__version__, path, address)
    finally:
        path.unlink(missing_ok=True)
        if address is not None:
            object_store.delete([address])


def _encode(job: Any) -> bytes:
    import cloudpickle

    return zlib.compress(cloudpickle.dumps(job), 1)
