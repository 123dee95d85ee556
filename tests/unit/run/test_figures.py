"""The types of a run's files promise nothing that is not checked when the files are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, get_origin, get_type_hints

import pytest

from submillion.run import figures, shapes
from submillion.storage.json_shapes import Shape

PAIRS: list[tuple[Any, Shape]] = [
    (figures.SetFigures, shapes._RESULT),
    (figures.ClassFigures, shapes._CLASS),
    (figures.ReliabilityPoint, shapes._BIN),
    (figures.PairedFigures, shapes._COMPARISON),
    (figures.BaselineFigures, shapes._BASELINE),
    (figures.SampleFigures, shapes._SAMPLE),
    (figures.FoundLeak, shapes._LEAK),
    (figures.SplitFindings, shapes._SPLIT),
    (figures.Findings, shapes._FINDINGS),
    (figures.Lengths, shapes._LENGTHS),
    (figures.DataFile, shapes._DATA),
]


@pytest.mark.parametrize(("kind", "shape"), PAIRS, ids=lambda part: getattr(part, "__name__", "shape"))
def test_every_typed_key_is_checked_and_needed_where_the_type_says_so(kind: Any, shape: Mapping[str, Shape]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    needed = {key for key, hint in hints.items() if kind.__total__ and get_origin(hint) is not NotRequired}
    assert needed <= set(shape)
    assert set(hints) <= {key.removesuffix("?") for key in shape}
