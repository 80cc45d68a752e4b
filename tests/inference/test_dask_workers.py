"""Many machines make the bytes that one makes, whatever befalls them."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import torch
from distributed.utils import get_mp_context
from hypothesis import given
from hypothesis import strategies as st
from inference_common import CLASSES, trained_model

import geopsp
from geopsp import PixelClassifier, classify_pixels
from geopsp.cluster import client as clients
from geopsp.cluster import tasks
from geopsp.cluster.client import connect
from geopsp.cluster.workers import require_versions
from geopsp.errors import InputNotFoundError, OptionError, OutputError, RasterError
from geopsp.inference import dask_workers as cluster
from geopsp.inference import map_run, outputs
from geopsp.inference import predict_parts as parts
from geopsp.inference.dask_workers import own_device
from geopsp.inference.job import MapJob
from geopsp.inference.job_store import raster_addresses
from geopsp.inference.options import MapSettings
from geopsp.inference.plan_job import plan_job
from geopsp.inference.predict_parts import predict_part
from geopsp.inference.run_job import run_job
from geopsp.inference.torch_engine import TorchEngine
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.saved_model import save_model
from geopsp.raster.scene import Scene

PARTS = 6


def make_parts(job, numbers, client, *, device=None, progress=None):
    with cluster.parts_on_cluster(job, numbers, client, packages=TorchEngine.packages, device=device) as collect:
        collect(progress)


class Deadly(MapJob):
    """Kills the process that asks for part 2, the first time only if `out` ends with once.tif."""

    __slots__ = ()

    def has(self, number):
        mark = self.folder / "killed"
        if number == 2 and not (self.out.name == "once.tif" and mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return MapJob.has(self, number)


class DeadlyScene(Scene):
    """Kills the process that reads below row 100, the first time: its part is begun, and not done."""

    __slots__ = ()

    def read(self, window=None):
        folder = Path(self.name)
        if window.row > 100:
            with suppress(FileExistsError):  # of two that read at once one dies
                (folder / "killed").touch(exist_ok=False)
                (folder / "begun").write_text("\n".join(path.name for path in next(folder.glob("*/parts")).iterdir()))
                os.kill(os.getpid(), signal.SIGKILL)
        return Scene.read(self, window)


class Broken(MapJob):
    """Cannot read part 1."""

    __slots__ = ()

    def has(self, number):
        if number == 1:
            raise RasterError("image.tif cannot be read at columns 64 to 128")
        time.sleep(0.2)
        return MapJob.has(self, number)


class Held(MapJob):
    """Goes no further than two parts until it may."""

    __slots__ = ()

    def has(self, number):
        if number > 1:
            wait_until((self.folder / "go on").exists)
        return MapJob.has(self, number)


def turned(thing, kind, **changes):
    """The same as another class of it."""
    return kind(**{f.name: changes.get(f.name, getattr(thing, f.name)) for f in fields(thing) if f.init})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return trained_model(count=2, network=build_network(ModelSpec("tu-test_resnet", 2, CLASSES)).eval())


@pytest.fixture
def new_job(make_raster, model, tmp_path):
    """A job of 2 x 3 parts that has begun: `new_job("map.tif", kind)`."""
    rng = np.random.default_rng(1)
    data = np.kron(rng.integers(1, 200, (2, 20, 14)), np.ones((1, 8, 8))).astype("uint8")
    scene = Scene.open(make_raster("image.tif", data, nodata=0))

    def make(name, kind=MapJob):
        wanted = [outputs.class_spec(tmp_path / name, model.legend)]
        wanted += [outputs.fraction_spec("confidence", tmp_path / f"sure-{name}")]
        job = plan_job(scene, model, wanted, MapSettings(batch_size=2), part_side=64, block=16)
        assert len(job.parts) == PARTS
        job.begin(2)
        save_model(model, job.model_folder)
        return turned(job, kind)

    return make


@pytest.fixture
def alone(new_job):
    """What the parts' files hold if one process makes them."""
    job, before = new_job("alone.tif"), torch.get_num_threads()
    for number in range(PARTS):
        assert predict_part(job, number, device="cpu") > 0
    torch.set_num_threads(before)
    return files(job)


def files(job):
    return {
        path.name: path.read_bytes()
        for path in job.part_path(job.rasters[0], 0).parent.iterdir()
        if path.name[0] != "."
    }


@contextmanager
def port_taken(number):
    """By another cluster of this machine, say."""
    with ExitStack() as stack:
        with suppress(OSError):  # it is already
            stack.enter_context(socket.create_server(("", number)))
        yield


@contextmanager
def quick_starts():
    """Processes are forked from one that has imported all: two start here, and one after each that is killed."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        modules = ["distributed", "geopsp.inference.predict_parts", "geopsp.inference.torch_engine"]
        get_mp_context().set_forkserver_preload(modules)
        yield


@pytest.fixture(scope="module")
def client():
    """Two processes of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "cpu_count", lambda: 2)
        patch.setattr(clients, "PROCESS_BYTES", 1)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        with port_taken(8787), quick_starts(), connect("local") as client:
            assert len(client.nthreads()) == 2
            assert set(client.nthreads().values()) == {1}
            client.cluster.scheduler.allowed_failures = 1
            yield client


def test_workers_of_this_machine_keep_freed_memory(client):
    assert client.cluster.workers
    assert not any("MALLOC_TRIM_THRESHOLD_" in nanny.pre_spawn_env for nanny in client.cluster.workers.values())


def test_many_make_what_one_makes(new_job, alone, client):
    job, told = new_job("many.tif"), []
    make_parts(job, [4, 0], client)
    assert job.missing() == [1, 2, 3, 5]
    make_parts(job, job.missing(), client, progress=lambda *step: told.append(step))
    assert files(job) == alone
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not list(job.folder.glob("order-*"))


def test_the_map_of_many_is_the_map_of_one(new_job, model, client, capsys):
    """To the last byte of the files; what a first run had made is not made again."""
    before, rasters = torch.get_num_threads(), []
    for name, workers in (("one.tif", None), ("many.tif", client)):
        job = new_job(name)
        if workers:
            make_parts(job, [1, 5], workers)
        run_job(job, model, device="cpu", client=workers)
        rasters.append([product.path.read_bytes() for product in job.rasters])
        assert not job.folder.exists()
    torch.set_num_threads(before)
    assert rasters[0] == rasters[1]
    assert f"2 of {PARTS} parts are done" in capsys.readouterr().err


def test_images_by_themselves_are_what_one_machine_makes(make_raster, model, client, tmp_path, capsys):
    """To the last byte, though the workers have parts of several at once."""
    paths, before = [], torch.get_num_threads()
    for seed, name in enumerate("abc"):
        data = np.random.default_rng(seed).integers(1, 200, (2, 70, 90)).astype("uint8")
        paths.append(make_raster(f"{name}.tif", data, names=model.bands))
    classifier = PixelClassifier.__new__(PixelClassifier)
    classifier.model, classifier.device = model, "cpu"
    for place, workers in (("here", None), ("there", client)):
        classify_pixels(paths, classifier, tmp_path / place, per_image=True, client=workers)
    torch.set_num_threads(before)
    for name in "abc":
        assert (tmp_path / "here" / f"{name}.tif").read_bytes() == (tmp_path / "there" / f"{name}.tif").read_bytes()
    assert len(list((tmp_path / "there").iterdir())) == 9
    assert "3 images: " in capsys.readouterr().err


def test_a_run_goes_on_with_the_parts_that_it_was_begun_with(new_job, model, client, capsys):
    """On however many threads: the bytes are the same, and no part is thrown away."""
    one, many = new_job("one.tif"), new_job("many.tif")
    assert one.with_parts(1000).parts == one.parts, "it was begun with parts of 64"
    one.clear()
    assert (one.with_parts(1).parts, len(one.with_parts(1000).parts)) == (one.parts, 10)
    run_job(one, model, device="cpu")
    many.clear()
    smaller = many.with_parts(1000)
    smaller.begin(2)
    save_model(model, smaller.model_folder)
    make_parts(smaller, [0, 7, 9], client)
    assert many.with_parts(2).parts == smaller.parts != many.parts
    run_job(many, model, device="cpu", client=client)
    for ours, theirs in zip(many.rasters, one.rasters, strict=True):
        assert ours.path.read_bytes() == theirs.path.read_bytes()
    assert "3 of 10 parts are done" in capsys.readouterr().err


def test_a_process_loads_a_model_once_for_all_images(new_job, model, alone, monkeypatch):
    """Also if their parts come in turn, and are used with other options; another model is another one."""
    loaded, load = [], parts.load_for_worker
    monkeypatch.setattr(parts, "load_for_worker", lambda folder: loaded.append(folder) or load(folder))
    monkeypatch.setattr(parts, "_WORKER_MODEL", parts._WorkerModel())
    before, jobs = torch.get_num_threads(), [new_job("a.tif"), replace(new_job("b.tif"), key="0" * 64)]
    jobs[1].begin(2)
    save_model(model, jobs[1].model_folder)
    for number in range(PARTS):
        for job in jobs:
            predict_part(job, number, device="cpu")
    assert [files(job) for job in jobs] == [alone, alone]
    turned_over = replace(new_job("c.tif"), settings=replace(jobs[0].settings, test_time_augmentation=True))
    predict_part(turned_over, 0, device="cpu")
    assert files(turned_over)["000000.confidence"] != alone["000000.confidence"]
    assert len(loaded) == 1
    other = replace(new_job("d.tif"), model="another")
    predict_part(other, 0, device="cpu")
    torch.set_num_threads(before)
    assert loaded == [jobs[0].model_folder, other.model_folder]


def test_a_worker_opens_each_of_the_images_that_it_has_once():
    assert cluster._read_job.cache_parameters()["maxsize"] == map_run.MAX_IMAGES_IN_FLIGHT


def test_a_worker_that_dies_midway_costs_nothing(new_job, alone, client):
    job = new_job("midway.tif")
    job = turned(job, MapJob, scene=turned(job.scene, DeadlyScene, name=str(job.folder)))
    make_parts(job, job.missing(), client)
    assert (job.folder / "killed").exists()
    assert ".classes-" in (job.folder / "begun").read_text(), "it had begun to write"
    assert files(job) == alone


@pytest.mark.slow
def test_a_part_that_kills_one_worker_after_the_other_is_named(new_job, client):
    """Or one that waited behind it: Dask cannot tell which of a worker's tasks was its end."""
    job = new_job("deadly.tif", Deadly)
    with pytest.raises(OptionError, match=r"2 workers died at part \d \(\d+ x \d+ .* row \d+\) or at a part .*resumes"):
        make_parts(job, range(PARTS), client)
    client.wait_for_workers(2, timeout=60)


def test_a_part_that_fails_ends_it_with_its_own_error(new_job, client):
    job = new_job("broken.tif", Broken)
    with pytest.raises(RasterError, match="columns 64 to 128"):
        make_parts(job, range(PARTS), client)
    assert job.folder.exists()
    wait_until(lambda: not any(client.processing().values()))


def test_a_run_that_is_broken_off_can_be_gone_on_with(new_job, alone, client):
    job = new_job("off.tif")

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_parts(turned(job, Held), range(PARTS), client, progress=interrupt)
    wait_until(lambda: not any(client.processing().values()))
    left = job.missing()
    assert 0 < len(left) < PARTS
    (job.folder / "go on").touch()
    make_parts(job, left, client)
    assert files(job) == alone


def wait_until(true, seconds=60):
    stop = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < stop
        time.sleep(0.02)


def test_a_worker_without_the_folder_is_named(new_job, client, monkeypatch):
    job = new_job("far.tif")
    plain = cluster.order_file

    @contextmanager
    def another(job, path):
        with plain(job, path) as order:
            order.path.write_bytes(b"what another machine has there")
            yield order

    monkeypatch.setattr(cluster, "order_file", another)
    folder = re.escape(str(job.folder))
    with pytest.raises(OutputError, match=rf"worker tcp://\S+ does not see {folder}.*all machines share"):
        make_parts(job, [0], client)
    assert job.missing() == list(range(PARTS))


def test_a_worker_without_an_image_is_named(new_job, client):
    job = new_job("blind.tif")
    path = Path(job.scene.sources[0].path)
    path.rename(path.with_name("elsewhere.tif"))
    with pytest.raises(InputNotFoundError, match=rf"worker tcp://\S+ does not see the image {re.escape(str(path))}"):
        make_parts(job, [0], client)


def test_a_worker_that_joins_late_is_asked_too(new_job, client, monkeypatch):
    job = new_job("late.tif")
    monkeypatch.setattr(cluster, "check_workers", lambda *_, **__: None)
    Path(job.scene.sources[0].path).unlink()
    with pytest.raises(InputNotFoundError, match="does not see the image"):
        make_parts(job, [0], client)


def test_an_order_withdrawn_is_not_carried_out(new_job, client):
    """The folder may be another job's by then."""
    job = new_job("gone.tif")
    with cluster.order_file((job, raster_addresses(job)), job.folder / "order-1") as order:
        worker = min(client.nthreads())
        assert client.submit(cluster._predict_part, 0, order=order, workers=[worker]).result() > 0
    with pytest.raises(OutputError, match="was cancelled"):
        client.submit(cluster._predict_part, 1, order=order, workers=[worker]).result()
    assert job.missing() == list(range(1, PARTS))


def test_another_geopsp_is_told(new_job, client, monkeypatch):
    job = new_job("other.tif")
    monkeypatch.setattr(geopsp, "__version__", "0.0.1")
    with pytest.raises(OptionError, match=r"worker \S+ has geopsp [\d.]+\S*, but this process has 0\.0\.1"):
        make_parts(job, [0], client)


def answering(versions):
    """A client whose workers have these versions."""
    return SimpleNamespace(get_versions=lambda packages: versions)


@pytest.mark.parametrize(("theirs", "found"), [(None, "no geopsp"), ("0.0.1", "geopsp 0.0.1")])
def test_a_worker_with_another_geopsp_or_none_is_named(theirs, found):
    about = dict.fromkeys(TorchEngine.packages, "1")
    versions = {
        "client": {"packages": {**about, "geopsp": "2"}},
        "workers": {"tcp://here:1": {"packages": {**about, "geopsp": theirs}}},
    }
    with pytest.raises(OptionError, match=f"worker tcp://here:1 has {found}, but this process has 2"):
        require_versions(SimpleNamespace(get_versions=lambda packages: versions), TorchEngine.packages, "maps differ")


def test_a_worker_with_another_torch_is_noted(capsys):
    about = dict.fromkeys(["geopsp", *TorchEngine.packages], "1")
    versions = {
        "client": {"packages": about},
        "workers": {"tcp://a:1": {"packages": about}, "tcp://b:1": {"packages": {**about, "torch": "2"}}},
    }
    require_versions(SimpleNamespace(get_versions=lambda packages: versions), TorchEngine.packages, "maps differ")
    said = capsys.readouterr().err
    assert "Warning: The worker tcp://b:1 has torch 2 instead of 1: maps differ." in said
    assert "tcp://a:1" not in said


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def test_no_scheduler_is_told_quickly(monkeypatch):
    monkeypatch.setattr(clients, "TIMEOUT", 0.5)
    addresses = [
        f"tcp://127.0.0.1:{free_port()}",
        "nonsense",
        "tcp://",
        "ftp://here:1",
        f"tls://127.0.0.1:{free_port()}",
    ]
    start = time.monotonic()
    for address in addresses:
        with pytest.raises(OptionError, match=f"answers at '{address}'.*dask scheduler"), connect(address):
            pass
    assert time.monotonic() - start < 12, "three addresses, of 5 s if it were as ever, and 30 s if it were Dask's"


def test_a_server_of_another_kind_is_no_scheduler(monkeypatch):
    monkeypatch.setattr(clients, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the call, and says nothing
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OptionError, match="No Dask scheduler"), connect(address):
            pass


def test_a_worker_is_no_scheduler(client, monkeypatch):
    monkeypatch.setattr(clients, "TIMEOUT", 60)
    with pytest.raises(OptionError, match="the address of a Worker"), connect(min(client.nthreads())):
        pass


def test_a_running_scheduler_is_used_and_left_running(client, monkeypatch):
    monkeypatch.setattr(clients, "TIMEOUT", 60)
    address = client.scheduler.address
    with connect(address) as other:
        assert set(other.nthreads()) == set(client.nthreads())
    assert client.submit(max, 1, 2).result() == 2


def test_a_scheduler_that_goes_away_is_told(new_job):
    job = new_job("away.tif")
    for status in ("cancelled", "lost"):
        failure = tasks.failure_of(SimpleNamespace(key=("part", 3), status=status), cluster._words(job))
        assert isinstance(failure, OptionError)
        assert "scheduler is gone" in str(failure)
        assert "resumes" in str(failure)


@given(count=st.integers(0, 9), number=st.integers(0, 99), form=st.sampled_from(["{}", "node-{}", "tcp://a:{}", "x{}"]))
def test_workers_share_the_gpus_of_a_machine(count, number, form):
    known = count > 1 and form in ("{}", "node-{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=form.format(number)))
        assert own_device(count) == (f"cuda:{number % count}" if known else None)
        patch.setenv("CUDA_VISIBLE_DEVICES", "3")
        assert own_device(count) is None


def test_a_long_silence_without_workers_is_broken(capsys, monkeypatch):
    from queue import SimpleQueue

    monkeypatch.setattr(tasks, "IDLE_SECONDS", 0.01)
    ready, workers = SimpleQueue(), iter([{"a": 1}, {}])

    def nthreads():
        found = next(workers)
        if not found:
            ready.put("part")
        return found

    assert tasks.next_done(ready, SimpleNamespace(nthreads=nthreads)) == "part"
    assert capsys.readouterr().err.count("has no workers") == 1
