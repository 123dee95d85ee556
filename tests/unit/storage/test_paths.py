from __future__ import annotations

import pytest

from submillion.errors import ConfigError
from submillion.model.sources import find_base
from submillion.storage.files import expand_home


@pytest.mark.parametrize(
    ("path", "words"),
    [("x" * 5000, "is too long for a path"), ("y" * 300, "is too long"), ("a\0b", "holds a character")],
)
def test_what_no_file_system_takes_is_refused(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        expand_home(path, where="model.base")
    assert caught.value.where == "model.base"
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError, match=words):
        find_base(path)


def test_what_is_not_there_is_a_path() -> None:
    assert str(expand_home("no/such/file")) == "no/such/file"
