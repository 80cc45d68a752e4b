"""Published weights for satellites: the table, the download, the bands, the errors. Files are the test's own."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import util
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import timm
import torch
from click.testing import CliRunner
from common import REPOSITORY, slow
from huggingface_hub import constants
from safetensors.torch import save_file

from geopsp.cli import main
from geopsp.cli.shell_command import translator
from geopsp.core.time_limit import time_limit
from geopsp.errors import ModelError
from geopsp.models import encoder, hub
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.encoder import build_encoder
from geopsp.models.spectral_bands import SENSORS
from geopsp.models.stem import match_stem, standardise_stem
from geopsp.models.weight_sets import WEIGHT_SETS, supported_weights
from geopsp.models.weights import init_encoder, load_encoder_weights

MOCO = next(row for row in WEIGHT_SETS if (row.name, row.backbone) == ("ssl4eo-s2-moco", "resnet18"))
L2A = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


def published_state(row):
    """Tensors of the keys that torchgeo publishes: those of timm, with a classifier."""
    torch.manual_seed(0)
    net = timm.create_model(row.backbone, in_chans=len(row.bands), num_classes=2)
    net.bn1.running_mean.normal_()
    return net.state_dict()


def published_file(folder, row, state):
    """Write the file of a set; return its row, with the checksum of this file."""
    path = folder / "new.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    row = replace(row, file=row.file.replace(row.sha256, digest))
    return row, path.rename(folder / row.file)


class Hub(ThreadingHTTPServer):
    """A hub of Hugging Face with one file, on this machine."""

    block_on_close = False

    def __init__(self, row, content, *, silent=False):
        self.row, self.content, self.silent, self.asked = row, content, silent, []
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self):
        row = self.server.row
        self.server.asked.append((self.command, self.path))
        known = self.path == f"/{row.repository}/resolve/{row.revision}/{row.file}"
        self.send_response(200 if known else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", row.revision)
        self.send_header("Content-Length", str(len(self.server.content) if known else 0))
        self.end_headers()
        return known

    def do_GET(self):
        if self.do_HEAD():
            if self.server.silent:
                self.server.done.wait(30)
            else:
                self.wfile.write(self.server.content)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Start a hub; the cache is the test's own."""
    servers = []

    def start(row, content, **options):
        server = Hub(row, content, **options)
        server.done = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(hub, "WEIGHT_SETS", (row,))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        return server

    yield start
    for server in servers:
        server.done.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def untouched():
    """An encoder that must not change."""
    built = build_encoder("resnet18", bands=len(L2A), output_stride=32)
    before = {key: value.clone() for key, value in built.state_dict().items()}
    yield built
    assert all(torch.equal(before[key], value) for key, value in built.state_dict().items())


# ---- the table


def test_each_row_is_complete_and_found_once():
    assert len({(row.name, row.backbone) for row in WEIGHT_SETS}) == len({row.file for row in WEIGHT_SETS})
    for row in WEIGHT_SETS:
        assert len(row.sha256) == 8, row
        assert int(row.sha256, 16) >= 0, row
        assert set(row.bands) <= set(SENSORS[row.sensor]), row
        assert len(row.std) in {0, len(row.bands)}, row
        assert urlsplit(row.url).hostname == "huggingface.co", row
        assert all((row.scale, row.licence, row.paper.startswith("arxiv:"), len(row.revision) == 40)), row
        assert hub.find_weight_set(row.name, row.backbone) is row
        assert hub.find_weight_set(f"folder/{row.file}", f"tu-{row.backbone}") is row


@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18", *map(slow, ("resnet50", "resnet152", "tu-resnet50"))])
def test_keys_are_those_of_timm(name):
    """As torchgeo loads its files into timm's networks, these are their keys; our encoders have the same."""
    prefix = "model." if name.startswith("tu-") else ""
    with torch.device("meta"):
        theirs = timm.create_model(name.removeprefix("tu-"), in_chans=13).state_dict()
    ours = build_encoder(name, bands=13, output_stride=32).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        prefix + key: value.shape for key, value in theirs.items() if not key.startswith("fc.")
    }


def test_the_page_has_the_table():
    """Otherwise: `python docs/make_weights.py`."""
    spec = util.spec_from_file_location("make_weights", REPOSITORY / "docs" / "make_weights.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page()
    assert all(row.url in module.page() for row in WEIGHT_SETS)


def test_the_shell_lists_them():
    lines = CliRunner().invoke(main, ["weights"]).output.splitlines()
    assert len(lines) == 1 + len({row.name for row in WEIGHT_SETS})
    assert any(line.split()[:3] == ["ssl4eo-s2-moco", "resnet18,", "resnet50"] for line in lines)
    assert all("B8A" in line and "CC-BY-4.0" in line for line in lines if line.startswith("ssl4eo-s2-moco"))
    rows = json.loads(CliRunner().invoke(main, ["weights", "--backbone", "resnet18", "--json"]).output)["weights"]
    assert [row["url"] for row in rows] == [row.url for row in supported_weights("resnet18")]
    assert {row["backbone"] for row in rows} == {"resnet18"}
    assert supported_weights("tu-resnet18") == supported_weights("resnet18")
    assert "none for mobilenet_v2" in CliRunner().invoke(main, ["weights", "--backbone", "mobilenet_v2"]).output


# ---- download, cache, checksum


@pytest.mark.parametrize("name", [slow("resnet18"), "tu-resnet18"])
def test_weights_are_downloaded_once_and_put_on_the_bands(name, serve, tmp_path, monkeypatch, caplog):
    state = published_state(MOCO)
    row, path = published_file(tmp_path, MOCO, state)
    server = serve(row, path.read_bytes())
    network = build_network(ModelSpec(backbone=name, bands=len(L2A) + 1, classes=2))
    with caplog.at_level(logging.INFO):
        assert init_encoder(network, name, row.name, (*L2A, "dem")) == row.name
    told = (
        f"The weights {row.name} know the bands B02, B03, B04, B08, B8A, B11, B12; the images lack B01, B05, B06, B07, "
        "B09, B10; filters of dem start from the mean of the others; licence CC-BY-4.0"
    )
    assert [record.getMessage() for record in caplog.records if record.name.startswith("geopsp")] == [told]
    prefix = "model." if name.startswith("tu-") else ""
    scaled = standardise_stem(state, "conv1.weight", "bn1.running_mean", row.std)
    scaled["conv1.weight"] = match_stem(scaled["conv1.weight"], (1, 2, 3, 7, 8, 11, 12, None))
    for key, value in network.encoder.state_dict().items():
        torch.testing.assert_close(value, scaled[key.removeprefix(prefix)])
    assert {command for command, _ in server.asked} == {"HEAD", "GET"}
    asked = len(server.asked)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *place, **_: pytest.fail(f"{place}: it is in the cache"))
    load_encoder_weights(network.encoder, name, row.name, (*L2A, "dem"))
    assert len(server.asked) == asked


def test_a_damaged_cache_is_downloaded_again(serve, tmp_path):
    row, path = published_file(tmp_path, MOCO, published_state(MOCO))
    server = serve(row, path.read_bytes())
    first = hub.weight_set_file(row, row.name)
    first.resolve().write_bytes(b"half")
    asked = len(server.asked)
    assert hub.weight_set_file(row, row.name).read_bytes() == path.read_bytes()
    assert len(server.asked) > asked


def test_another_file_than_the_published_one_is_refused(serve, tmp_path, untouched):
    row, path = published_file(tmp_path, MOCO, published_state(MOCO))
    serve(row, path.read_bytes() + b"more")
    with pytest.raises(ModelError, match="sent is another one: its checksum differs"):
        load_encoder_weights(untouched, "resnet18", row.name, L2A)


@pytest.mark.slow
def test_a_silent_server_is_not_waited_for(serve, tmp_path, untouched):
    row, path = published_file(tmp_path, MOCO, published_state(MOCO))
    serve(row, path.read_bytes(), silent=True)
    before = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with time_limit(1), pytest.raises(ModelError, match=r"Cannot download the weights ssl4eo-s2-moco for resnet18\. "):
        load_encoder_weights(untouched, "resnet18", row.name, L2A)
    assert before == constants.HF_HUB_DOWNLOAD_TIMEOUT


def test_without_network_one_error_says_where_to_place_the_file(tmp_path, monkeypatch, untouched):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoder, "getproxies", dict)

    def no_network(*args, **options):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(ModelError) as caught:
        load_encoder_weights(untouched, "resnet18", MOCO.name, L2A)
    text = str(caught.value)
    assert "there is no network" in text
    assert MOCO.url in text
    assert f"`encoder_weights='FOLDER/{MOCO.file}'`" in text


def test_a_mirror_of_the_hub_is_looked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(encoder, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_: asked.append(host))
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example:8080/hub")
    encoder.require_network("resnet18")
    assert asked == ["mirror.example"]


def test_the_shell_says_it_in_its_own_words():
    text = translator(click.Context(main.commands["train"], parent=click.Context(main)))(
        "Pass the file, `encoder_weights='FOLDER/w.pth'`, or choose `backbone='resnet50'`."
    )
    assert text == "Pass the file, --weights FOLDER/w.pth, or choose --backbone resnet50."


def test_a_local_file_is_known_by_its_name(tmp_path, monkeypatch):
    state = published_state(MOCO)
    row, path = published_file(tmp_path, MOCO, state)
    monkeypatch.setattr(hub, "WEIGHT_SETS", (row,))
    built = build_encoder("resnet18", bands=13, output_stride=8)
    load_encoder_weights(built, "resnet18", str(path), row.bands)
    expected = state["conv1.weight"] * torch.tensor(row.std)[:, None, None]
    torch.testing.assert_close(built.conv1.weight.data, expected)
    unnamed = build_encoder("resnet18", bands=13, output_stride=8)
    load_encoder_weights(unnamed, "resnet18", str(path), tuple(f"band_{i + 1}" for i in range(13)))
    assert torch.equal(unnamed.conv1.weight, built.conv1.weight)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=rf"{row.file} is damaged: its SHA-256 does not begin with {row.sha256}"):
        load_encoder_weights(built, "resnet18", str(path), row.bands)


# ---- what does not fit


def test_another_backbone_is_named(untouched):
    with pytest.raises(ModelError, match=r"ssl4eo-s2-dino are for resnet50, not for resnet18\. Choose `backbone='res"):
        load_encoder_weights(untouched, "resnet18", "ssl4eo-s2-dino", L2A)
    with pytest.raises(ModelError, match=r"satlas-s2-mi are for resnet50, resnet152, not for tu-resnet34"):
        load_encoder_weights(untouched, "tu-resnet34", "satlas-s2-mi", L2A)


def test_no_band_in_common(tmp_path, monkeypatch, untouched):
    row, path = published_file(tmp_path, MOCO, published_state(MOCO))
    monkeypatch.setattr(hub, "WEIGHT_SETS", (row,))
    with pytest.raises(ModelError, match=r"are for the bands B01, B02.* but the images have none of them: VV, VH"):
        load_encoder_weights(untouched, "resnet18", str(path), ("VV", "VH"))


# ---- bands of other files


def test_bands_in_the_metadata_of_a_local_file(tmp_path, untouched):
    torch.manual_seed(1)
    donor = build_encoder("resnet18", bands=4, output_stride=32).state_dict()
    path = tmp_path / "w.safetensors"
    save_file(donor, path, metadata={"bands": "blue, green,red,nir"})
    built = build_encoder("resnet18", bands=4, output_stride=32)
    load_encoder_weights(built, "resnet18", str(path), ("nir", "B4", "RED", "blue"))
    expected = match_stem(donor["conv1.weight"], (3, None, 2, 0))
    torch.testing.assert_close(built.conv1.weight.data, expected)
    assert torch.equal(built.bn1.running_mean, donor["bn1.running_mean"])
    with pytest.raises(ModelError, match="none of them: VV, VH"):
        load_encoder_weights(untouched, "resnet18", str(path), ("VV", "VH"))
    save_file(donor, path, metadata={"bands": "red,green"})  # not those of its first layer
    load_encoder_weights(built, "resnet18", str(path), ("nir", "green", "red", "blue"))
    assert torch.equal(built.conv1.weight, donor["conv1.weight"])
    assert Path(path).is_file()
