"""Headers of safetensors files: names and shapes of the tensors, without reading a single weight."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from submillion.errors import ModelError

# Bytes per element, for the types that adapters and heads are stored in.
_ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_MAX_HEADER_BYTES = 100_000_000  # This is the limit of the format's reference reader.


def read_tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a safetensors file from its header, and check that the file is complete.

    The file holds 8 bytes with the header's length (little endian), a JSON header, then the tensors without gaps
    (https://github.com/huggingface/safetensors, "Format").

    Raises:
        ModelError: The file is missing, truncated or damaged.
    """
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise _fail(path, f"its header should take {length:,} bytes, the file has {size:,}")
            header = json.loads(file.read(length).decode("utf-8"))
    except OSError as error:
        raise _fail(path, f"cannot be read: {error}") from None
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise _fail(path, "its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise _fail(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    spans = sorted(_read_entry(path, name, entry) for name, entry in header.items())
    ends = [0, *(end for _, end in spans)]
    if any(begin != end for (begin, _), end in zip(spans, ends, strict=False)):
        raise _fail(path, "its tensors overlap or leave gaps")
    if ends[-1] != size - 8 - length:
        raise _fail(path, f"its tensors take {ends[-1]:,} bytes, the file holds {size - 8 - length:,}")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _read_entry(path: Path, name: str, entry: Any) -> tuple[int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            if dtype not in _ELEMENT_BYTES:
                raise _fail(path, f"{name} has the unknown type {dtype!r}")
            whole = all(isinstance(width, int) and not isinstance(width, bool) and width >= 0 for width in shape)
            if whole and end - begin == math.prod(shape) * _ELEMENT_BYTES[dtype]:
                return begin, end
    raise _fail(path, f"the entry of {name} is damaged: {entry!r:.120}")


def _fail(path: Path, problem: str) -> ModelError:
    return ModelError(
        f"damaged weights: {problem}", where=str(path), hint="Fetch or save the file again; it may be truncated."
    )
