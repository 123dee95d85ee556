"""Ways to damage a file: bytes, lines, and the values of JSON, YAML and safetensors. All by a random number."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import yaml

DEEP = "@deep@"
LONG = "@long@"

# What takes a value's place. The strings DEEP and LONG become what `json` itself refuses to write.
ABSURD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 2**64, -(2**63), 1e308, 1e-320, 0.5, -0.0),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        10**40,
        DEEP,
        LONG,
        "",
        " ",
        "x" * 70_000,
        "\0",
        "a\0b",
        "nan",
        "1e999",
    ),
    *(
        "\ud800",
        "\x1b[31mred\x1b[0m\x07",
        "e\u0301\u200b\u202e",
        "../../../outside",
        "/dev/zero",
        "/nowhere/at/all",
        ".",
    ),
    *("step-1", "-1", "01", "1.0", "true", "null", "{}", "%s%n", "${HOME}", "~nouser/x", "a" * 300, "[" * 300),
    *([], {}, [[]], [None], {"": {}}, [0] * 5_000, ["a"] * 5_000, {"a": {"b": {"c": 1}}}, [[1, 2], [3]], [-1, 2**40]),
)
TOKENS: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\0" * 64,
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n\n",
        b"\t",
        b",",
        b";",
        b'"',
    ),
    *(
        b'""',
        b'"""',
        b"'",
        b"\\",
        b"\x1b[2J",
        b"\x1a",
        b"\x85",
        b"\xe2\x80\xa8",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\\ud800",
    ),
    *(
        b"[" * 100_000,
        b"{" * 2_000,
        b'{"a":' * 100_000,
        b"9" * 5_000,
        b"-",
        b"1e999",
        b"NaN",
        b"-1",
        b"0",
        b"null",
        b"{}",
    ),
    *(
        "\u0301".encode() * 3_000,
        "\u200b".encode(),
        "\u00a0".encode(),
        b"a" * 70_000,
        b"," * 5_000,
        b"&a [*a]",
        b"!!int x",
    ),
    *(b"!!python/object/apply:os.system [id]", b"2020-99-99", b"<<: *x", b"%", b"#", b"&amp;lt;", b"<b>", b"sep=;\n"),
)
WHOLE: tuple[bytes, ...] = (
    *(
        b"",
        b"{}",
        b"[]",
        b'""',
        b"null",
        b"0",
        b"\0" * 4096,
        b"\n",
        b" ",
        b"PAR1PAR1",
        b"ARROW1\0\0",
        b"\x80\x04.",
        b"{",
    ),
    *(
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"\xff" * 1000,
        b"a" * 200_000,
        b"true",
        b"NaN",
        b"\x1f\x8b\x08\0",
        b"PK\x03\x04",
    ),
)
_EXTREME = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**63,
    2**64 - 1,
    1 << 40,
)


def mutate_bytes(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Change a file in one to three ways that ignore its contents."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_BYTE_WAYS)(rng, content, others)
    return content


def _span(rng: random.Random, content: bytes, longest: int = 4096) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, longest))))


def _flip(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _turn in range(rng.choice((1, 1, 2, 4, 8)) if changed else 0):
        place = rng.randrange(len(changed))
        changed[place] = rng.choice((changed[place] ^ (1 << rng.randrange(8)), 0, 1, 127, 255, rng.randrange(256)))
    return bytes(changed)


def _overwrite_number(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    size = rng.choice((1, 2, 4, 4, 8))
    if len(content) < size:
        return content
    start = rng.randrange(len(content) - size + 1)
    number = struct.pack(rng.choice(("<Q", ">Q")), rng.choice(_EXTREME))
    return content[:start] + (number[:size] if number[0] else number[-size:]) + content[start + size :]


def _truncate(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _behead(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[rng.randrange(len(content) + 1) :]


def _delete(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, stop = _span(rng, content)
    return content[:start] + content[stop:]


def _duplicate(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, stop = _span(rng, content)
    place = rng.randrange(len(content) + 1)
    return content[:place] + content[start:stop] * rng.choice((1, 1, 2, 50)) + content[place:]


def _swap(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    (a, b), (c, d) = sorted((_span(rng, content), _span(rng, content)))
    return content if b > c else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _insert(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(TOKENS) + content[place:]


def _splice(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _append(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    return content + rng.choice(others)


def _replace(rng: random.Random, _: bytes, __: Sequence[bytes]) -> bytes:
    return rng.choice(WHOLE)


def _mix_lines(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    place = rng.randrange(len(lines))
    way = rng.randrange(5)
    if way == 0:
        del lines[place]
    elif way == 1:
        lines[place:place] = [lines[place]] * rng.choice((1, 2, 100))
    elif way == 2:
        rng.shuffle(lines)
    elif way == 3:
        lines.insert(place, rng.choice(rng.choice(others).splitlines(keepends=True) or [b"\n"]))
    else:
        lines[place] = lines[place].rstrip(b"\r\n") + rng.choice(TOKENS) + b"\n"
    return b"".join(lines)


def _replace_number(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content))
    if not found:
        return content
    match = rng.choice(found)
    new = rng.choice((b"-1", b"0", b"99999999999999999999", b"1e400", b"NaN", b"0.1", b"1.0", b"x", b"", b"4294967296"))
    return content[: match.start()] + new + content[match.end() :]


_Way = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
_BYTE_WAYS: tuple[_Way, ...] = (
    *(_flip, _flip, _flip, _overwrite_number, _overwrite_number, _truncate, _behead, _delete, _duplicate, _swap),
    *(_insert, _insert, _splice, _append, _replace, _mix_lines, _mix_lines, _replace_number),
)


# ----------------------------------------------------------------------------------------------- values, not bytes


def mutate_value(rng: random.Random, value: Any, others: Sequence[Any] = ()) -> Any:
    """Return a copy of a value of JSON in which one place is changed."""
    value = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []
    _collect_places(value, places)
    if not places or rng.random() < 0.03:
        return rng.choice(ABSURD)
    container, key = rng.choice(places)
    way = rng.randrange(10)
    if way == 0 and isinstance(container, dict):
        del container[key]
    elif way == 1 and isinstance(container, dict):
        container[rng.choice(("", "x", key.upper(), key + "_", "\0", "__class__", DEEP))] = container.pop(key)
    elif way == 2 and isinstance(container, list):
        container[key:key] = [container[key]] * rng.choice((1, 3, 1000))
    elif way == 3 and isinstance(container, list):
        del container[key]
    elif way == 4:
        other, where = rng.choice(places)
        container[key] = json.loads(json.dumps(other[where]))
    elif way == 5 and isinstance(container[key], str):
        text = container[key]
        place = rng.randrange(len(text) + 1)
        container[key] = (
            text[:place] + rng.choice(("\0", "\ud800", "\x1b[1m", "/", "..", "\n", " ", "9")) + text[place:]
        )
    elif way == 6 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
        container[key] = rng.choice((container[key] + 1, -container[key], container[key] * 1000, str(container[key])))
    elif way == 7 and others:
        container[key] = rng.choice(others)
    else:
        container[key] = rng.choice(ABSURD)
    return value


def _collect_places(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value[:50]) if isinstance(value, list) else ()
    for key, item in list(items):
        places.append((value, key))
        _collect_places(item, places)


def _dump_json(value: Any) -> bytes:
    text = json.dumps(value).replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).replace(f'"{LONG}"', "1" * 5_000)
    return text.encode()


def mutate_json(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Change one to three values of a JSON file."""
    try:
        value = json.loads(content)
    except ValueError:
        return mutate_bytes(rng, content, others)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = mutate_value(rng, value)
    return _dump_json(value)


def mutate_json_lines(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Change one line of a file of JSON lines."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return mutate_bytes(rng, content, others)
    place = rng.randrange(len(lines))
    lines[place] = mutate_json(rng, lines[place], others) + b"\n"
    return b"".join(lines)


def mutate_yaml(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Change one to three values of a YAML file."""
    try:
        value = yaml.safe_load(content)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            value = mutate_value(rng, value)
        text: str = yaml.safe_dump(value, sort_keys=False)
    except (ValueError, TypeError, yaml.YAMLError):
        return mutate_bytes(rng, content, others)
    for mark, new in ((DEEP, "[" * 5_000 + "]" * 5_000), (LONG, "1" * 5_000)):
        text = text.replace(f"'{mark}'", new).replace(mark, new)
    if rng.random() < 0.15:
        # Values that only YAML has, in the place of a plain one.
        odd = (
            "!!int abc",
            "2020-99-99",
            "!!binary '%'",
            "*unknown",
            "&a [*a]",
            "!!set {a}",
            "!!float x",
            "0x",
            "1:70:3",
        )
        found = list(re.finditer(r"(?<=: )[^\n]+", text))
        if found:
            match = rng.choice(found)
            text = (
                text[: match.start()]
                + rng.choice((*odd, "!!timestamp x", "!!omap [a]", "? {a: b}"))
                + text[match.end() :]
            )
    return text.encode("utf-8", "surrogatepass")


def mutate_safetensors(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Change the header of a safetensors file."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
    except ValueError:
        return mutate_bytes(rng, content, others)
    changed = _dump_json(mutate_value(rng, header))
    changed += b" " * (-len(changed) % 8)
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def _pack_zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", content)
    return file.getvalue()


def _unpack_zip(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0])


_PACKERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (lambda content: gzip.compress(content, 1), gzip.decompress),
    "bz2": (lambda content: bz2.compress(content, 1), bz2.decompress),
    "xz": (lambda content: lzma.compress(content, preset=0), lzma.decompress),
    "zip": (_pack_zip, _unpack_zip),
}


def _mutate_packed(packer: str) -> _Way:
    pack, unpack = _PACKERS[packer]

    def mutate(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
        return pack(mutate_bytes(rng, unpack(content), [unpack(other) for other in others]))

    return mutate


MUTATORS: dict[str, _Way] = {
    "bytes": mutate_bytes,
    "json": mutate_json,
    "jsonl": mutate_json_lines,
    "yaml": mutate_yaml,
    "safetensors": mutate_safetensors,
    **{packer: _mutate_packed(packer) for packer in _PACKERS},
}
