"""The files that the driver damages, and the actions that read them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from submillion.errors import SubmillionError

from . import data_files
from .mutate import MUTATORS


class Disagreement(AssertionError):
    """Two readers of one file do not find the same rows: something was lost or made up without a word."""


@dataclass(frozen=True)
class Target:
    """One kind of file that is damaged.

    Attributes:
        name: Name in tables; the part before the slash is the group.
        contents: Valid files.
        ways: Names of mutators.
        put: Takes an empty folder and the damaged content; writes what is needed around it and returns what is used.
        actions: Called with what `put` has returned; one of them a case.
        weight: Share of the cases.
    """

    name: str
    contents: Sequence[bytes]
    ways: Sequence[str]
    put: Callable[[Path, bytes], Path]
    actions: Sequence[Callable[[Path], object]]
    weight: float = 1.0

    def damage(self, rng: random.Random) -> bytes:
        """Return a damaged content."""
        content = rng.choice(self.contents)
        way = MUTATORS[rng.choice(self.ways)]
        changed = way(rng, content, self.contents)
        return way(rng, content, self.contents) if changed == content else changed


def read_rows(path: Path) -> None:
    """Read a file as training does and as predicting does, and compare the results."""
    from submillion.data.read import iter_records, read_dataset

    trained = None
    refusal: SubmillionError | None = None
    try:
        trained = read_dataset(str(path))
    except SubmillionError as error:
        refusal = error
    if trained is not None and list(trained.splits) != ["all"]:
        return
    try:
        streamed = [(record.id, record.columns) for record in iter_records(str(path))]
    except SubmillionError as error:
        if trained is not None:
            raise Disagreement(f"the stream refuses what training reads: {error}") from error
        raise
    if refusal is not None:
        raise refusal
    assert trained is not None
    rows = [(record.id, record.columns) for record in trained.splits["all"]]
    if rows != streamed:
        raise Disagreement(f"training reads {len(rows)} rows, the stream {len(streamed)}; or their texts differ")


def check_rows(path: Path) -> None:
    """Examine a file with the command for it."""
    run_command("check", path)


def run_command(*words: object) -> None:
    """Run a command of the program in this process, and let its exceptions through."""
    from typer.main import get_command

    from submillion.cli.app import app

    get_command(app).main(args=[str(word) for word in words], prog_name="submillion", standalone_mode=False)


def put_as(name: str) -> Callable[[Path, bytes], Path]:
    """Return a function that writes a file of this name."""

    def put(folder: Path, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return put


def put_into(template: Mapping[str, bytes] | Path, name: str, used: str = "") -> Callable[[Path, bytes], Path]:
    """Return a function that copies a folder and puts a file into it; `used` is what of it is then read."""

    def put(folder: Path, content: bytes) -> Path:
        root = folder / "folder"
        if isinstance(template, Path):
            shutil.copytree(template, root, symlinks=True)
        else:
            root.mkdir()
            for file, valid in template.items():
                (root / file).write_bytes(valid)
        (root / name).write_bytes(content)
        return root / used

    return put


def iter_data_targets() -> Iterator[tuple[str, Callable[[], Target]]]:
    """Yield (name, function that makes the target) for files of rows."""
    from submillion.tables.formats import find_suffix

    for ending, make, ways in data_files.iter_formats():
        if find_suffix(Path(f"rows{ending}")) != ending:
            continue
        name = ending.removeprefix(".")
        weight = {"csv": 3, "tsv": 2, "jsonl": 2, "parquet": 4, "arrow": 4, "feather": 2, "pkl": 4}.get(name, 0.5)

        def build(
            name: str = name,
            ending: str = ending,
            make: Callable[[], list[bytes]] = make,
            ways: Sequence[str] = ways,
            weight: float = weight,
        ) -> Target:
            actions = [read_rows] * 19 + [check_rows]
            return Target(f"data/{name}", make(), ways, put_as(f"rows{ending}"), actions, weight)

        yield f"data/{name}", build
    saved = data_files.make_saved_folder()
    for file, valid in saved.items():
        ways = ("bytes", "json") if file.endswith(".json") else ("bytes",)
        yield (
            f"data/saved-{file}",
            partial(Target, f"data/saved-{file}", [valid], ways, put_into(saved, file), [read_rows], 1.0),
        )
    folder = {"train.csv": data_files.make_csv()[-1], "test.csv": data_files.make_csv()[-1]}
    names = [b"World\nSports\nBusiness\nSci/Tech\n", b"a\nb\nc\nd", b"World\n"]
    yield (
        "data/classes.txt",
        lambda: Target(
            "data/classes.txt", names, ("bytes",), put_into(folder, "classes.txt", "train.csv"), [read_rows], 1.0
        ),
    )
