"""Damage of the other formats: YAML, token files, indexes, SQLite and safetensors."""

import hashlib
import json
import sqlite3
import struct
import tempfile
import zlib
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import numpy as np
import yaml

from benchmarks.fuzzing.mutations import DEEP, broken_bytes, damaged_json, damaged_tree, nested_text
from lit_attr.files.seal import trailer

_MARK = b"\nlit_attr index\n"
# Aliases: each entry is nine times the one before, as values, and as merged keys.
_LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
_MERGES = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
_YAML_BOMBS = (
    f"a0: &a0 x\n{_LAUGHS}module_info: *a11\n",
    f"a0: &a0 {{x: 1}}\n{_MERGES}",
    "a: &a [*a]\nmodule_info: *a\n",
    "x: 2020-13-45\n",
    f"x: {'9' * 5000}\n",
    "x: " + ":1" * 5000,
    "? {a: b}\n: 1\n",
    "x: !!python/object/apply:os.system [true]\n",
    "x: !!binary '!'\n",
    "x: !!set {a, b}\nmodule_info: !!set {a}\n",
    "\0",
    "%YAML 9.9\n---\nx: 1\n",
    "x: &x 1\nx: 2\n--- \n",
    "- " * 5000,
    "a: " + "{b: " * 20_000,
)


def damaged_yaml(random: Random, good: bytes) -> bytes:
    """A YAML file with odd entries, broken bytes, or entries that grow when they are read."""
    kind = random.randrange(10)
    if kind < 3:
        return broken_bytes(random, good)
    if kind == 3:
        return good + random.choice(_YAML_BOMBS).encode()
    tree = damaged_tree(random, yaml.safe_load(good))
    if random.randrange(2):
        return nested_text(json.dumps(tree))  # JSON is YAML, and is written much faster
    with suppress(yaml.YAMLError):
        return nested_text(yaml.safe_dump(tree).replace(DEEP, f'"{DEEP}"'))
    return good


def damaged_tokens(random: Random, good: bytes) -> bytes:
    """A .npy file with another header, or broken bytes."""
    if random.randrange(3) == 0:
        return broken_bytes(random, good)
    length = struct.unpack("<H", good[8:10])[0]
    descr = random.choice(
        ("<u2", "<i4", ">i8", "|O", "<f8", "|V9", "|S0", "<U9", "", "x", "<i3", "<m8", [("a", "<i4")])
    )
    sizes = (0, 1, 16, -1, 10**12, 2**62, 2**63, 10**400, 1.5, None)
    shape = tuple(random.choice(sizes) for _ in range(random.choice((0, 1, 2, 2, 2, 3, 40))))
    order = random.choice((False, False, True, None, 1))
    header = repr({"descr": random.choice((descr, "<u2")), "fortran_order": order, "shape": shape})
    kind = random.randrange(12)
    if kind == 0:
        header = random.choice(("(" * 5000, "{" * 60_000, "-" * 30_000 + "1", "{'descr': '<u2'}", "", "\0", "[1L]"))
    elif kind == 1:
        header = header.replace("descr", random.choice(("Descr", "x" * 50_000)))
    version = random.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    data = header.encode() + b"\n"
    size = random.choice((len(data), len(data), len(data), 0, 0xFFFF, 0xFFFFFFFF))
    length_bytes = struct.pack("<H", size & 0xFFFF) if version == b"\x01\x00" else struct.pack("<I", size)
    return good[:6] + version + length_bytes + data + good[10 + length :]


def damaged_index(random: Random, good: bytes) -> bytes:
    """An index with odd entries in its table of contents, or odd records; most check sums are true."""
    kind = random.randrange(8)
    if kind < 2:
        return broken_bytes(random, good)
    end = len(good) - len(_MARK) - 12
    length = struct.unpack("<Q", good[end : end + 8])[0]
    records, table = good[: end - length], json.loads(good[end - length : end])
    if kind < 6:
        text = nested_text(json.dumps(damaged_tree(random, table)))
    else:  # positions and values of one record, with its check sum
        section = random.choice(table["sections"])
        n_entries = section["n_lists"] * section["k"]
        size = n_entries * 8 + 4
        start = section["offset"] + random.randrange(max(section["n_records"], 1)) * size
        data = bytearray(records[start : start + size - 4])
        for _ in range(random.choice((1, 3, 50))):
            place = random.randrange(2 * n_entries) * 4
            odd = random.choice((-1, -2, 0, 1, section["n_positions"], 2**31 - 1, -(2**31), 0x7FC00000, 0x7F800000))
            data[place : place + 4] = struct.pack("<i", odd)
        records = records[:start] + data + zlib.crc32(data).to_bytes(4, "little") + records[start + size :]
        text = json.dumps(table).encode()
    numbers = struct.pack("<QI", len(text), zlib.crc32(text))
    return records + text + numbers + _MARK


def write_database(path: Path) -> None:
    """A small `harvest.db` of the run in tests/before."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE components (component_key TEXT PRIMARY KEY, firing_density REAL NOT NULL)")
        connection.execute("CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        keys = [(f"h.0.mlp.c_fc:{n}", n / 3) for n in range(3)]
        connection.executemany("INSERT INTO components VALUES (?, ?)", keys)
        method = {"wandb_path": "wandb:x/y/runs/s-0before0"}
        connection.execute("INSERT INTO config VALUES ('method_config', ?)", (json.dumps(method),))
        connection.commit()


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_STATEMENTS = (
    "DROP TABLE components",
    "DROP TABLE config",
    "ALTER TABLE components RENAME COLUMN firing_density TO density",
    "UPDATE components SET component_key = NULL",
    "UPDATE components SET component_key = x'ff00'",
    "UPDATE components SET component_key = component_key || '9999999999999999999999'",
    "UPDATE components SET component_key = 'h.0.mlp.c_fc:\u0664' WHERE firing_density = 0",
    f"UPDATE components SET component_key = 'h.0.mlp.c_fc:' || '{'9' * 5000}' WHERE firing_density = 0",
    f"UPDATE components SET component_key = '{'x' * 100_000}' WHERE firing_density = 0",
    "UPDATE components SET component_key = CAST(x'80ff' AS TEXT) WHERE firing_density = 0",
    "UPDATE components SET firing_density = 'x'",
    "UPDATE components SET firing_density = 9e999",
    "UPDATE components SET firing_density = -1",
    "DELETE FROM components",
    "UPDATE config SET value = zeroblob(100)",
    "UPDATE config SET value = CAST(x'80ff' AS TEXT)",
    "UPDATE config SET value = 17",
    "UPDATE config SET value = '{'",
    "UPDATE config SET value = '[1]'",
    """UPDATE config SET value = '{"wandb_path": {"a": []}}'""",
    f"UPDATE config SET value = '{'[' * 100_000}'",
    "INSERT INTO config VALUES (NULL, 'x')",
    "UPDATE config SET key = zeroblob(3)",
    f"DROP TABLE config; CREATE VIEW config AS {_ENDLESS} SELECT i AS key, i AS value FROM n",
    f"DROP TABLE components; CREATE VIEW components AS {_ENDLESS} "
    "SELECT 'h.0.mlp.c_fc:0' AS component_key, i AS firing_density FROM n",
    "UPDATE components SET component_key = zeroblob(900000000)",
    "DROP TABLE components; CREATE TABLE components AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
    "LIMIT 50000) SELECT 'h.0.mlp.c_fc:' || (i % 3) AS component_key, 1.0 AS firing_density FROM n",
)


def damaged_database(random: Random, good: bytes) -> bytes:
    """A SQLite file with other contents, or broken bytes."""
    if random.randrange(2):
        return broken_bytes(random, good)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "harvest.db"
        path.write_bytes(good)
        statement = random.choice(_STATEMENTS).replace("900000000", str(random.choice((10, 10**6))))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection, suppress(sqlite3.Error):
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(statement)
        return path.read_bytes()


def damaged_part(random: Random, good: bytes) -> bytes:
    """A part with odd entries in its head, or broken bytes; most seals are true."""
    content = good[: -len(trailer("0" * 64))]
    if random.randrange(2):
        length = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + length])
        ledger = head["__metadata__"]["ledger"]
        if random.randrange(3):
            head["__metadata__"]["ledger"] = nested_text(json.dumps(damaged_tree(random, json.loads(ledger)))).decode()
            text = json.dumps(head).encode()
        else:
            text = nested_text(json.dumps(damaged_tree(random, head)))
        damaged = len(text).to_bytes(8, "little") + text + content[8 + length :]
    else:
        damaged = damaged_weights(random, content)
    return damaged + trailer(hashlib.sha256(damaged).hexdigest() if random.randrange(8) else "0" * 64)


def damaged_weights(random: Random, good: bytes) -> bytes:
    """A safetensors file with odd entries in its header, or broken bytes."""
    if random.randrange(3) == 0:
        return broken_bytes(random, good)
    length = int.from_bytes(good[:8], "little")
    header = damaged_json(random, good[8 : 8 + length])
    size = random.choice((len(header), len(header), len(header), 0, 2**40, 2**63))
    return size.to_bytes(8, "little") + header + good[8 + length :]


def truncated_numbers(random: Random, good: bytes) -> bytes:
    """A file of bare numbers that is too short, too long, or has other numbers."""
    kind = random.randrange(4)
    if kind == 0:
        return good[: random.randrange(len(good))]
    if kind == 1:
        return good + b"\xff" * random.randrange(1, 100)
    if kind == 2:
        return np.full(len(good) // 4, odd_number(random), "<i4").tobytes()
    return broken_bytes(random, good)


def odd_number(random: Random) -> int:
    """A number of 32 bits that is hardly a token id."""
    return random.choice((-1, 0, 2**31 - 1, -(2**31), 11))
