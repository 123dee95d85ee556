"""Find the files of a data source, and the split of each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from submillion.data import hub
from submillion.errors import DataError
from submillion.storage.files import expand_home
from submillion.tables import arrow
from submillion.tables.formats import BINARY_SUFFIXES, TEXT_SUFFIXES, find_suffix

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
HUB_PREFIX = "hf:"


@dataclass(frozen=True)
class Source:
    """The files of a data source.

    Attributes:
        splits: Files by split; a single file is ``all``.
        class_names: Class names by column, in label order, if a card of the hub names them.
    """

    splits: dict[str, list[Path]]
    class_names: Mapping[str, tuple[str, ...]]


def find_source(data: str, revision: str | None = None) -> Source:
    """Find the files of a data source.

    Args:
        data: Path (an existing one takes precedence) or ``hf:owner/name``.
        revision: Commit of a hub data set.

    Raises:
        DataError: There are no files, or they are not named as splits.
    """
    path = expand_home(data)
    if not path.exists() and data.startswith(HUB_PREFIX):
        files, class_names = hub.fetch_dataset(data.removeprefix(HUB_PREFIX), revision)
        return Source(find_splits(files, data), class_names)
    if not path.is_dir():
        return Source({"all": [path]}, {})
    if (path / "dataset_dict.json").is_file():
        names = arrow.read_json_file(path / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise DataError("names no splits", where=str(path / "dataset_dict.json"), hint="Save the data set again.")
        return Source(find_splits([(name, path / name) for name in names], data), {})
    if (path / "state.json").is_file():
        return Source({"all": [path]}, {})
    files_here = sorted(entry for entry in path.iterdir() if entry.is_file() and find_suffix(entry) is not None)
    return Source(find_splits([(file.name, file) for file in files_here], data), {})


def find_single(data: str) -> tuple[Path, Mapping[str, tuple[str, ...]]]:
    """Return the one file of a data source, and the class names by column from a card of the hub.

    Raises:
        DataError: There are several files, or none.
    """
    source = find_source(data)
    paths = [path for paths in source.splits.values() for path in paths]
    if len(paths) != 1:
        raise DataError(
            f"expected one file, found {', '.join(path.name for path in paths)}",
            where=data,
            hint="Give the path of one of these files.",
        )
    return paths[0], source.class_names


def find_splits(files: Sequence[tuple[str, Path]], where: str) -> dict[str, list[Path]]:
    """Sort files into splits by their names: ``train.csv``, ``dev.jsonl``, ``test-00000-of-00002.parquet``.

    Args:
        files: Names and paths of the files.
        where: Name of the data set, for messages.

    Raises:
        DataError: No file is named as a split, two files claim one, or a part is missing.
    """
    result: dict[str, list[Path]] = {}
    for split, aliases in SPLIT_NAMES.items():
        pattern = re.compile(rf"({'|'.join(aliases)})(-\d+-of-(?P<count>\d+))?(\..*)?", re.IGNORECASE)
        matches = [(match, path) for name, path in files if (match := pattern.fullmatch(name))]
        if not matches:
            continue
        count = int(matches[0][0]["count"] or 1)
        if len(matches) != count:
            names = ", ".join(path.name for _, path in matches)
            raise DataError(
                f"the {split} split needs {count} file(s), found {len(matches)}: {names}",
                where=where,
                hint="Keep exactly one file of a split, or all of its numbered parts.",
            )
        result[split] = [path for _, path in matches]
    if not result:
        present = ", ".join(name for name, _ in files[:10]) or "no data files"
        raise DataError(
            f"found no train, validation or test file; it holds {present}",
            where=where,
            hint="Name files train, validation and test with one of "
            f"{', '.join((*TEXT_SUFFIXES, *BINARY_SUFFIXES))}, or give one file.",
        )
    return result


def list_files(path: Path) -> list[Path]:
    """Return the files with the rows of a path, which can be a saved folder."""
    return sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
