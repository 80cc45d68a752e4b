"""Damages to files, each drawn by a seed: of their bytes, and of what these mean."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import re
import sqlite3
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Mutation = Callable[[Path, random.Random], None]

DEEP = "@deep@"
WEIRD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 255, 2**31, 10**30, 1e308, -1e308, 0.5, float("nan"), float("inf"), float("-inf"), "", "x",
    "1", "nan", "../../../etc/passwd", "/dev/zero", "a" * 100_000, "\0", "\x1b[31m", "tif\n", "é\u202e", [], {}, [[]],
    [None], [1] * 100_000, {"x": 1}, [{}], DEEP,
)  # fmt: skip
"""Values that take the place of others."""

WEIRD_TEXTS = (
    "", "0", "-1", "1e999", "nan", "inf", "99999999999999999999", "x", "../x", "/dev/zero", "&#1;", "\0", "a" * 10_000,
    "é", "1 2 3", "[", "{", "- - -", "\t", '"', "EPSG:9999999", "&lt;x&gt;", "true", "null", "*",
    "!!python/name:os.system",
)  # fmt: skip


# --- bytes ---


def on_bytes(change: Callable[[bytearray, random.Random], bytes | bytearray]) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        path.write_bytes(change(bytearray(path.read_bytes()), rng))

    return mutate


def _span(data: bytearray, rng: random.Random, most: int) -> tuple[int, int]:
    start = rng.randrange(max(len(data), 1))
    return start, min(len(data), start + rng.randint(1, most))


def flip(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def head(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(min(256, len(data)))] = rng.randrange(256)
    return data


def tail(data: bytearray, rng: random.Random) -> bytearray:
    data[-rng.randint(1, min(256, len(data)))] = rng.randrange(256)
    return data


def flips(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(max(2, len(data) // 500)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return data


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def behead(data: bytearray, rng: random.Random) -> bytearray:
    return data[rng.randrange(1, len(data)) :]


def insert(data: bytearray, rng: random.Random) -> bytearray:
    start, _ = _span(data, rng, 1)
    return data[:start] + rng.randbytes(rng.randint(1, 64)) + data[start:]


def delete(data: bytearray, rng: random.Random) -> bytearray:
    start, stop = _span(data, rng, 64)
    return data[:start] + data[stop:]


def zeros(data: bytearray, rng: random.Random) -> bytearray:
    start, stop = _span(data, rng, 512)
    data[start:stop] = bytes(stop - start)
    return data


def swap(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.randint(1, max(1, len(data) // 4))
    one, other = rng.randrange(len(data)), rng.randrange(len(data))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return data


def empty(_: bytearray, __: random.Random) -> bytes:
    return b""


def junk(data: bytearray, rng: random.Random) -> bytes:
    return rng.randbytes(len(data) or 100)


BYTES: dict[str, Mutation] = {
    change.__name__: on_bytes(change)
    for change in (flip, head, tail, flips, cut, behead, insert, delete, zeros, swap, empty, junk)
}


# --- JSON ---


def json_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value below the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield (*path, key)
        yield from json_paths(inner, (*path, key))


def _holder(root: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        root = root[key]
    return root


def change_json(root: Any, rng: random.Random, kind: str) -> Any:
    """Return JSON with a value removed, retyped, swapped with another, or doubled."""
    paths = list(json_paths(root))
    if not paths:
        return rng.choice(WEIRD)
    path = rng.choice(paths)
    holder = _holder(root, path)
    if kind == "remove":
        del holder[path[-1]]
    elif kind == "retype":
        holder[path[-1]] = rng.choice(WEIRD)
    elif kind == "root":
        return rng.choice(WEIRD)
    elif kind == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[path[-1]]))
    else:
        other = rng.choice(paths)
        there = _holder(root, other)
        holder[path[-1]], there[other[-1]] = copy.deepcopy(there[other[-1]]), copy.deepcopy(holder[path[-1]])
    return root


def dump_json(root: Any) -> str:
    return json.dumps(root).replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000)


def sign_model(path: Path, manifest: Any) -> None:
    """Write model.json with checksums that fit, as who forges one would."""
    if isinstance(manifest, dict):
        manifest.pop("manifest_sha256", None)
        manifest["manifest_sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(dump_json(manifest), encoding="utf-8")


def on_json(kind: str, *, signed: bool = False, lines: bool = False) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        text = path.read_text(encoding="utf-8")
        if lines:
            rows = text.splitlines()
            number = rng.randrange(len(rows))
            rows[number] = dump_json(change_json(json.loads(rows[number]), rng, kind))
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
            return
        root = json.loads(text)
        if signed and rng.random() < 0.75:  # most of it is history and settings
            part = rng.choice(["architecture", "classes", "bands", "statistics", "losses"])
            root[part] = change_json(root[part], rng, kind)
        else:
            root = change_json(root, rng, kind)
        if signed:
            sign_model(path, root)
        else:
            path.write_text(dump_json(root), encoding="utf-8")

    return mutate


KINDS = ("remove", "retype", "swap_values", "double", "root")
JSON: dict[str, Mutation] = {f"json_{kind}": on_json(kind) for kind in KINDS}
SIGNED_JSON: dict[str, Mutation] = {f"signed_{kind}": on_json(kind, signed=True) for kind in KINDS}
JSON_LINES: dict[str, Mutation] = {f"line_{kind}": on_json(kind, lines=True) for kind in KINDS}


# --- texts ---


def on_tokens(pattern: str) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        text = path.read_text(encoding="utf-8")
        found = list(re.finditer(pattern, text))
        match = rng.choice(found)
        path.write_text(text[: match.start()] + rng.choice(WEIRD_TEXTS) + text[match.end() :], encoding="utf-8")

    return mutate


def move_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    taken = lines.pop(rng.randrange(len(lines)))
    if rng.random() < 0.7:
        for _ in range(rng.randint(1, 3)):
            lines.insert(rng.randrange(len(lines) + 1), taken)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


TEXT: dict[str, Mutation] = {
    "word": on_tokens(r"[\w.+-]+"), "sign": on_tokens(r"[^\w\s]"), "blank": on_tokens(r"\s+"), "line": move_line,
}  # fmt: skip


def change_xml(path: Path, rng: random.Random) -> None:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    elements = list(root.iter())
    parents = {child: parent for parent in elements for child in parent}
    element = rng.choice(elements)
    kind = rng.choice(["text", "attribute", "remove", "double", "tag"])
    value = rng.choice([text for text in WEIRD_TEXTS if text.isprintable()])
    if kind == "attribute" and element.attrib:
        element.set(rng.choice(list(element.attrib)), value)
    elif kind == "remove" and element in parents:
        parents[element].remove(element)
    elif kind == "double" and element in parents:
        parents[element].append(copy.deepcopy(element))
    elif kind == "tag" and element in parents:
        element.tag = rng.choice([each.tag for each in elements])
    else:
        element.text = value
    path.write_bytes(ET.tostring(root))


XML: dict[str, Mutation] = {"xml": change_xml} | {"word": TEXT["word"]}


# --- TIFF ---

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def change_tag(path: Path, rng: random.Random) -> None:
    """Change number, type, count or value of a tag of a classic TIFF."""
    data = bytearray(path.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    directories, offset = [], struct.unpack_from(order + "I", data, 4)[0]
    while offset:
        count = struct.unpack_from(order + "H", data, offset)[0]
        directories += [offset + 2 + 12 * number for number in range(count)]
        offset = struct.unpack_from(order + "I", data, offset + 2 + 12 * count)[0]
    entry = rng.choice(directories)
    kind = rng.choice(["tag", "type", "count", "value", "value", "inside"])
    if kind == "tag":
        struct.pack_into(order + "H", data, entry, rng.choice([256, 257, 258, 259, 277, 284, 317, 339, 34264, 42113]))
    elif kind == "type":
        struct.pack_into(order + "H", data, entry + 2, rng.randrange(20))
    elif kind == "count":
        struct.pack_into(order + "I", data, entry + 4, rng.choice([0, 1, 2, 3, 65536, 2**28, 2**32 - 1]))
    elif kind == "value":
        new = rng.choice([0, 1, 2, 3, 5, 7, 16, 32, 255, 1000, 65535, 100_000, 2**24, 2**31, 2**32 - 1])
        struct.pack_into(order + "I", data, entry + 8, new)
    else:
        _, type_number, count, where = struct.unpack_from(order + "HHII", data, entry)
        size = SIZES.get(type_number, 1) * count
        start = where if size > 4 else entry + 8
        position = start + rng.randrange(max(size, 1))
        if position < len(data):
            data[position] = rng.randrange(256)
    path.write_bytes(data)


TIFF: dict[str, Mutation] = {"tag": change_tag}


# --- tables ---

SQL = (
    "DELETE FROM {layer}", "UPDATE {layer} SET geom = NULL", "UPDATE {layer} SET geom = x'00'",
    "UPDATE {layer} SET geom = substr(geom, 1, 30)", "UPDATE {layer} SET geom = 'text' WHERE fid = 1",
    "UPDATE {layer} SET geom = zeroblob(64)", "UPDATE {layer} SET kind = NULL", "UPDATE {layer} SET kind = 3.5",
    "UPDATE {layer} SET kind = x'ff00ff'", "UPDATE {layer} SET kind = hex(zeroblob(5000))",
    "UPDATE {layer} SET kind = '' WHERE fid = 1", "UPDATE {layer} SET fid = -fid",
    "UPDATE gpkg_contents SET srs_id = 999999", "UPDATE gpkg_contents SET srs_id = 'x'",
    "UPDATE gpkg_contents SET table_name = 'gone'", "UPDATE gpkg_contents SET data_type = 'tiles'",
    "UPDATE gpkg_contents SET min_x = 1e300, max_x = -1e300", "DELETE FROM gpkg_contents",
    "UPDATE gpkg_geometry_columns SET column_name = 'kind'", "UPDATE gpkg_geometry_columns SET srs_id = -1",
    "UPDATE gpkg_geometry_columns SET geometry_type_name = 'POINT'", "DELETE FROM gpkg_geometry_columns",
    "UPDATE gpkg_spatial_ref_sys SET definition = 'x'", "UPDATE gpkg_spatial_ref_sys SET organization = NULL",
    "UPDATE gpkg_spatial_ref_sys SET organization_coordsys_id = 4326", "DELETE FROM gpkg_spatial_ref_sys",
    "DROP TABLE gpkg_spatial_ref_sys", "DROP TABLE gpkg_geometry_columns", "DROP TABLE gpkg_contents",
    "DELETE FROM rtree_{layer}_geom", "DROP TABLE rtree_{layer}_geom", "ALTER TABLE {layer} DROP COLUMN kind",
    "ALTER TABLE {layer} RENAME COLUMN geom TO shape", "ALTER TABLE {layer} RENAME TO other",
    "CREATE VIEW v AS SELECT * FROM v; INSERT INTO gpkg_contents (table_name, data_type) VALUES ('v', 'features')",
    "PRAGMA application_id = 0", "PRAGMA user_version = 99999",
)  # fmt: skip


def change_sql(path: Path, rng: random.Random) -> None:
    """Run a statement that changes a GeoPackage, whose layer has the file's name."""
    database = sqlite3.connect(path)
    for name, count in (("ST_MinX", 1), ("ST_MaxX", 1), ("ST_MinY", 1), ("ST_MaxY", 1), ("ST_IsEmpty", 1)):
        database.create_function(name, count, lambda _: 0.0)
    database.execute("PRAGMA foreign_keys = OFF")
    try:
        database.executescript(rng.choice(SQL).format(layer=path.stem))
    except sqlite3.Error:
        database.execute("DROP TABLE gpkg_contents")
    database.commit()
    database.close()


def change_parquet(path: Path, rng: random.Random) -> None:
    """Drop, retype or empty a column, or change the JSON of the geometries' metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    column = rng.choice(table.column_names)
    place = table.column_names.index(column)
    kind = rng.choice(["geo", "geo", "geo", "drop", "null", "text", "blob", "number", "rows", "rename"])
    if kind == "geo":
        metadata = dict(table.schema.metadata)
        root = json.loads(metadata[b"geo"])
        metadata[b"geo"] = dump_json(change_json(root, rng, rng.choice(KINDS))).encode()
        table = table.replace_schema_metadata(metadata)
    elif kind == "drop":
        table = table.drop_columns([column])
    elif kind == "rows":
        table = table.slice(0, rng.randrange(2))
    elif kind == "rename":
        table = table.rename_columns([f"{name}2" if name == column else name for name in table.column_names])
    else:
        length = len(table)
        new = {
            "null": pa.nulls(length),
            "text": pa.array([rng.choice(["", "x", "é", "7"]) for _ in range(length)]),
            "blob": pa.array([rng.randbytes(rng.randrange(40)) for _ in range(length)]),
            "number": pa.array([rng.choice([-1.0, 0.0, 1e300, float("nan"), float("inf")]) for _ in range(length)]),
        }[kind]
        table = table.set_column(place, column, new)
    pq.write_table(table, path)


GPKG: dict[str, Mutation] = {"sql": change_sql}
PARQUET: dict[str, Mutation] = {"table": change_parquet}


# --- weights, arrays, checkpoints ---


def sign_weights(path: Path) -> None:
    """Let model.json beside weights name their checksum."""
    manifest = json.loads((path.parent / "model.json").read_text(encoding="utf-8"))
    manifest["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    sign_model(path.parent / "model.json", manifest)


def signed_weights(mutation: Mutation) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        mutation(path, rng)
        sign_weights(path)

    return mutate


def change_weights_header(path: Path, rng: random.Random) -> None:
    """Change the JSON at the start of a safetensors file, and its length."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if rng.random() < 0.2:
        path.write_bytes(struct.pack("<Q", rng.choice([0, 1, size - 1, 2**40, 2**64 - 1])) + data[8:])
        return
    changed = dump_json(change_json(header, rng, rng.choice(KINDS))).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + body)


WEIGHTS: dict[str, Mutation] = {"header": change_weights_header}
SIGNED_WEIGHTS: dict[str, Mutation] = {
    f"signed_{name}": signed_weights(mutation)
    for name, mutation in {"header": change_weights_header, "flips": BYTES["flips"], "cut": BYTES["cut"],
                           "swap": BYTES["swap"], "zeros": BYTES["zeros"]}.items()
}  # fmt: skip


def change_array_header(path: Path, rng: random.Random) -> None:
    """Change the text at the start of an .npy file, keeping its length."""
    data = bytearray(path.read_bytes())
    size = struct.unpack_from("<H", data, 8)[0]
    text = data[10 : 10 + size].decode("latin-1")
    numbers = list(re.finditer(r"\d+", text))
    new = rng.choice(["0", "1", "3", "99", "2147483648", "-1", "1e9"])
    if rng.random() < 0.7:
        match = rng.choice(numbers)
        text = text[: match.start()] + new + text[match.end() :]
    else:
        text = text.replace(
            *rng.choice([("|b1", "<f8"), ("|u1", "|O"), ("False", "True"), ("shape", "shap"), ("|", ">")])
        )
    data[10 : 10 + size] = text.rstrip().ljust(size - 1)[: size - 1].encode("latin-1") + b"\n"
    path.write_bytes(data)


def change_checkpoint(path: Path, rng: random.Random) -> None:
    """Change a value in what torch saved; called where torch is loaded."""
    import torch

    root = torch.load(path, weights_only=True)
    kind = rng.choice(["remove", "retype", "retype", "swap_values", "tensor"])
    if kind == "tensor":
        tensors = [p for p in json_paths(root) if isinstance(_holder(root, p)[p[-1]], torch.Tensor)]
        where = rng.choice(tensors)
        tensor = _holder(root, where)[where[-1]]
        new = rng.choice([tensor.double(), tensor.flatten()[:1], tensor[None], torch.zeros(0), tensor.bool(),
                          torch.full_like(tensor, -1), torch.tensor(float("nan"))])  # fmt: skip
        _holder(root, where)[where[-1]] = new
    else:
        root = change_json(root, rng, kind)
    torch.save(root, path)


ARRAY: dict[str, Mutation] = {"array": change_array_header}
CHECKPOINT: dict[str, Mutation] = {"content": change_checkpoint}
NEEDS_TORCH = {"content"}
"""Mutations that are done in a process of the server."""


# --- places in the file system ---


def _replace(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


FILES: dict[str, Mutation] = {
    "missing": lambda path, _: path.unlink(),
    "folder": lambda path, _: _replace(path, Path.mkdir),
    "dangling": lambda path, _: _replace(path, lambda link: link.symlink_to("nowhere")),
    "itself": lambda path, _: _replace(path, lambda link: link.symlink_to(link.name)),
}
