"""Headers of safetensors files: names and shapes of the tensors, without reading a single weight."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from submillion.errors import ModelError

RESTORE = "Fetch or save the file again; it may be truncated."


def read_tensor_shapes(path: Path, *, hint: str = RESTORE) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a safetensors file from its header, in the order of the file.

    The library compares the header with the size of the file, so a file that was cut or altered is refused.

    Args:
        path: The file.
        hint: Advice for a damaged file.

    Raises:
        ModelError: The file is missing, truncated or damaged.
    """
    # Plans of recipes need none of it.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.offset_keys()}
    except OSError as error:
        raise ModelError(f"cannot be read: {error}", where=str(path), hint=hint) from None
    except SafetensorError as error:
        problem = f"is damaged: {error}; the file was cut or altered"
        raise ModelError(problem, where=str(path), hint=hint) from None


def count_saved_params(paths: Iterable[Path]) -> int:
    """Return the number of values in safetensors files.

    Raises:
        ModelError: One is missing or damaged.
    """
    return sum(math.prod(shape) for path in paths for shape in read_tensor_shapes(path).values())
