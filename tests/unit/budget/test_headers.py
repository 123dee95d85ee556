from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from submillion.budget.headers import count_saved_params, read_tensor_shapes
from submillion.errors import ModelError


def write(path: Path, header: Any, size: int = 0) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return path


def entry(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_shapes_of_a_real_file(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "b": np.zeros((3, 4), dtype=np.float32),
        "a": np.zeros((5,), dtype=np.float16),
        "empty": np.zeros((0, 7), dtype=np.float32),
        "scalar": np.array(1, dtype=np.int64),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert read_tensor_shapes(tmp_path / "x.safetensors") == {name: array.shape for name, array in arrays.items()}
    assert count_saved_params([tmp_path / "x.safetensors"] * 2) == 2 * (12 + 5 + 0 + 1)
    assert count_saved_params([]) == 0


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({"a": np.zeros((2, 3), dtype=np.float32), "b": np.ones((2,), dtype=np.float32)}, whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError, match="is damaged"):
            read_tensor_shapes(cut)
    cut.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match="is damaged"):
        read_tensor_shapes(cut)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("[]", 0),
        ("{", 0),
        ('{"a": "é', 0),
        ({"a": entry([2], 0, 4)}, 4),
        ({"a": entry([1], 0, 4, "F33")}, 4),
        ({"a": entry([-1], 0, -4)}, 0),
        ({"a": entry([True], 0, 4)}, 4),
        ({"a": entry([1.5], 0, 6)}, 6),
        ({"a": entry([1], 4, 8)}, 8),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, 4),
        ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4),
        ({"a": 3}, 0),
        ({"a": entry([2**63, 2**63], 0, 4)}, 4),
        ('{"a":' + "[" * 100_000, 0),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: Any, size: int) -> None:
    path = write(tmp_path / "x.safetensors", header, size)
    with pytest.raises(ModelError) as caught:
        read_tensor_shapes(path)
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_a_huge_header_length_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="header too large"):
        read_tensor_shapes(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_tensor_shapes(tmp_path / "none.safetensors")
