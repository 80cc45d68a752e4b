"""An ONNX file is data: it is checked before ONNX Runtime sees it, and says what a map needs."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_common import GOLDEN, MODEL, changed, set_metadata, without

from geopsp.core.documents import DocumentError
from geopsp.errors import InputNotFoundError, ModelError, OptionError, PackageError
from geopsp.models.model_info import read_model_info
from geopsp.models.onnx_file import is_onnx, read_onnx
from geopsp.models.onnx_proto import read_header
from geopsp.models.saved_model import load_model

CONTENT = MODEL.read_bytes()


def test_it_knows_what_the_saved_model_knows():
    ours, saved, info = read_onnx(MODEL), load_model(GOLDEN / "model"), read_model_info(GOLDEN / "model")
    for name, value in info.entries().items():
        for other in (getattr(ours, name), getattr(saved, name)):
            if name in {"statistics", "legend"}:
                assert other.to_json() == value.to_json()
            else:
                assert str(other) == str(value), name
    assert ours.excluded_channels() == saved.excluded_channels()
    assert ours.composition == f"{saved.composition}; ONNX, fp32"
    assert ours.export["weights_fingerprint"] == saved.fingerprint() != ours.fingerprint()
    assert "0.9 MB; 2 bands, 3 classes, tiles of 64" in ours.summary


def test_the_header_is_what_the_package_onnx_reads():
    header, proto = read_header(CONTENT), onnx.load(MODEL)
    assert header.ir_version == proto.ir_version
    assert header.opsets == {entry.domain: entry.version for entry in proto.opset_import}
    assert header.metadata == {entry.key: entry.value for entry in proto.metadata_props}
    assert header.operators == {node.op_type for node in proto.graph.node}
    for found, given_info in ((header.inputs, proto.graph.input), (header.outputs, proto.graph.output)):
        (spec,), (info,) = found, given_info
        dims = [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        assert (spec.name, spec.dtype, list(spec.shape)) == (info.name, "float32", dims)
    assert not header.external
    assert not header.nested


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
def test_a_damaged_file_is_refused_or_read_but_never_anything_else(at, value):
    damaged = bytearray(CONTENT[: max(at, len(CONTENT) // 2)])
    damaged[at % len(damaged)] = value
    with suppress(DocumentError):
        read_header(bytes(damaged))


@given(st.binary(max_size=200))
def test_what_is_no_onnx_file_is_refused(content):
    with pytest.raises(DocumentError):
        read_header(content)


def in_another_file(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def of_an_initializer(proto):
    in_another_file(proto.graph.initializer[0])


def of_a_constant(proto):
    node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(2, np.float32)))
    in_another_file(node.attribute[0].t)
    proto.graph.node.append(node)


def of_a_sparse_tensor(proto):
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.name = "s"
    in_another_file(sparse.values)


@pytest.mark.parametrize("change", [of_an_initializer, of_a_constant, of_a_sparse_tensor])
def test_weights_in_other_files_are_refused(change, tmp_path):
    with pytest.raises(PackageError, match="weights lie in other files, which it names, but must lie in it"):
        read_onnx(changed(tmp_path / "m.onnx", change))


def test_weights_in_other_files_are_found_in_a_second_graph_too(tmp_path):
    """A field that stands twice is joined by other readers."""
    other = onnx.ModelProto()
    in_another_file(other.graph.initializer.add(name="more", dims=[1], data_type=1))
    (tmp_path / "m.onnx").write_bytes(CONTENT + other.SerializeToString())
    with pytest.raises(PackageError, match="weights lie in other files"):
        read_onnx(tmp_path / "m.onnx")


def with_a_loop(proto):
    body = helper.make_graph([], "body", [], [])
    proto.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=body))


def with_a_function(proto):
    proto.functions.add(name="f", domain="geopsp")


def with_a_custom_operator(proto):
    proto.graph.node.append(helper.make_node("Exec", [], ["x"], domain="evil"))


def with_another_input(proto):
    proto.graph.input.append(helper.make_tensor_value_info("valid", 1, [1, 1, 64, 64]))


def with_free_sides(proto):
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"


def with_another_type(proto):
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_a_loop, "has loops, branches or functions"),
        (with_a_function, "has loops, branches or functions"),
        (with_a_custom_operator, r"operator 'evil\.Exec', which is none of ONNX's own"),
        (with_another_input, r"has the inputs .*, 'valid' \(float32, 1 x 1 x 64 x 64\), but must have"),
        (with_free_sides, r"has the inputs 'image' \(float32, batch x 2 x side x side\), but must have 'ima"),
        (with_another_type, r"inputs 'image' \(uint8"),
        (lambda proto: proto.opset_import.add(domain="com.microsoft", version=1), "are those of ONNX 18, com"),
        (lambda proto: setattr(proto.opset_import[0], "version", 99), "those of ONNX 99, but must be of ONNX 16 to 23"),
        (lambda proto: setattr(proto, "ir_version", 99), "its file format is IR version 99, but 7 to 11 can be read"),
        (set_metadata(geopsp_version="7"), "it has the format '7', but this geopsp reads '1'. Upgrade"),
        (set_metadata(geopsp_version=None), r"geopsp did not export it. It has the inputs 'image' .* the outputs"),
        (set_metadata(geopsp_version=None), r"needed are one input 'image' \(float32, batch x bands x size x size\)"),
        (set_metadata(geopsp_manifest=None), "its metadata lack geopsp_manifest"),
        (set_metadata(geopsp_manifest="{"), "its metadata geopsp_manifest cannot be read, as it is not JSON"),
        (set_metadata(geopsp_manifest="[]"), "its manifest does not describe a geopsp model"),
        (set_metadata(geopsp_export="{}"), "`tile_size` is missing"),
        (set_metadata(geopsp_export='{"tile_size": 1e9}'), "`tile_size` is 1000000000.0"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_line(change, message, tmp_path):
    path = changed(tmp_path / "m.onnx", change)
    with pytest.raises(PackageError, match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(f"{path} cannot be used as a model: ")
    assert "Export the saved model again with `geopsp export`." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_was_changed_is_refused(tmp_path):
    manifest = json.loads({entry.key: entry.value for entry in onnx.load(MODEL).metadata_props}["geopsp_manifest"])
    manifest["bands"] = ["nir", "red"]
    with pytest.raises(PackageError, match="its manifest was changed: its checksum differs"):
        read_onnx(changed(tmp_path / "m.onnx", set_metadata(geopsp_manifest=json.dumps(manifest))))


def test_there_must_be_a_regular_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such file"):
        read_onnx(tmp_path / "none.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    for name, words in (("pipe", "no regular file"), ("folder", "it is a folder"), ("empty", "it has no version")):
        with pytest.raises(PackageError, match=words):
            read_onnx(tmp_path / f"{name}.onnx")


def test_a_graph_that_onnx_runtime_refuses_is_one_line(tmp_path):
    def cut(proto):
        del proto.graph.node[3]

    model = read_onnx(changed(tmp_path / "m.onnx", cut))
    with pytest.raises(ModelError, match=r"ONNX Runtime [\d.]+ cannot run .*m\.onnx") as caught:
        model.session()
    assert "\n" not in str(caught.value)


def test_onnx_runtime_that_is_missing_is_named(monkeypatch):
    without(monkeypatch, "onnxruntime")
    with pytest.raises(OptionError, match=r"need onnxruntime, which is not installed. Run: pip install onnxruntime"):
        read_onnx(MODEL).session()


def test_a_file_is_known_by_its_ending():
    assert is_onnx("a/b.ONNX")
    assert not is_onnx("a.onnx/model")
