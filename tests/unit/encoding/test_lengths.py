from __future__ import annotations

import numpy as np
import pytest

from submillion.config.run import parse_config
from submillion.encoding.max_length import choose_length
from submillion.errors import ConfigError

LENGTHS = np.array([10] * 98 + [40, 90], np.int32)


@pytest.mark.parametrize(
    ("rule", "window", "limit", "num_cut"),
    [
        ("auto", 512, 29, 2),  # mean 11.1, deviation 8.47
        ("auto", None, 29, 2),
        ("auto", 16, 16, 2),
        ("p98", 512, 10, 2),
        ("p99", 512, 40, 1),
        ("p100", None, 90, 0),
        ("p100", 64, 64, 1),
        ("p1", 512, 10, 2),
    ],
)
def test_rules(rule: str, window: int | None, limit: int, num_cut: int) -> None:
    chosen = choose_length(LENGTHS, rule, window=window)
    assert (chosen.max_length, chosen.num_cut) == (limit, num_cut)
    assert (chosen.rule, chosen.window, chosen.longest, chosen.num_records) == (rule, window, 90, 100)
    assert chosen.mean == pytest.approx(11.1)
    assert chosen.deviation == pytest.approx(8.4729, abs=1e-3)


def test_no_limit_is_below_the_least_setting() -> None:
    assert choose_length(np.array([3, 3, 4]), "auto", window=512).max_length == 8


def test_the_choice_is_told() -> None:
    told = choose_length(LENGTHS, "auto", window=16).describe()
    assert told == (
        "model.max_length=auto: 16 tokens (mean 11.1 + 2 x 8.5 of 100 training rows, bounded by the base's 16); "
        "2 of them (2.0%) are longer and are cut"
    )
    assert "(percentile 99 of 100 training rows); 1 of them" in choose_length(LENGTHS, "p99", window=512).describe()


@pytest.mark.parametrize("value", ["auto", "p1", "p99", "p100", 8, 512])
def test_settings_that_are_taken(value: object) -> None:
    assert parse_config({"model": {"max_length": value}}, where="test").model.max_length == value


@pytest.mark.parametrize("value", ["p0", "p101", "p07", "mean", "", "auto ", 7, 0, 12.5])
def test_settings_that_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"model\.max_length"):
        parse_config({"model": {"max_length": value}}, where="test")
