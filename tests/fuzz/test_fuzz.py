"""Some thousand damaged files in the gate; ``python -m tests.fuzz --cases 50000`` makes more."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from . import data_files
from .execute import Outcome, make_case
from .mutate import MUTATORS
from .targets import Disagreement, Target, put_as

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("only", "cases"), [("data", 2000), ("run,base,adapter,cache,search,recipe,trainer", 100)])
def test_no_damaged_file_ends_but_well_or_in_a_typed_error(only: str, cases: int) -> None:
    words = ["--cases", str(cases), "--seed", "20", "--only", only, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH", "")]))}
    process = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in {0, 1}, process.stderr[-3000:]
    answer = json.loads(process.stdout.splitlines()[-1])
    assert answer["faults"] == []
    results = [sum(found.get(name, 0) for found in answer["counts"].values()) for name in ("read", "refused")]
    # Where nearly all is refused, or nothing, the damage is too coarse or too fine to find anything.
    assert min(results) > 0.05 * cases
    assert sum(results) > 0.9 * cases


def test_damage_follows_from_the_seed() -> None:
    target = Target("data/csv", data_files.make_csv(), ("bytes",), put_as("rows.csv"), [Path.stat], 1.0)
    cases = [make_case(target, 1, index) for index in range(50)]
    assert cases == [make_case(target, 1, index) for index in range(50)]
    assert len({content for content, _ in cases}) > 40
    assert cases != [make_case(target, 2, index) for index in range(50)]


@pytest.mark.parametrize("way", MUTATORS)
def test_every_way_of_damage_damages(way: str) -> None:
    contents = {
        "json": data_files.make_json(),
        "jsonl": data_files.make_jsonl(),
        "yaml": [b"a: 1\nb: [1, 2]\nc: {d: text}\n"],
        "safetensors": [b"\x20\0\0\0\0\0\0\0" + b'{"a":{"data_offsets":[0,4]}}    ' + b"abcd"],
        **dict(_pack_all()),
    }.get(way, data_files.make_csv())
    rng = random.Random(3)
    damaged = [MUTATORS[way](rng, contents[0], contents) for _ in range(30)]
    assert sum(content != contents[0] for content in damaged) > 20


def _pack_all() -> list[tuple[str, list[bytes]]]:
    makers = {ending: make for ending, make, _ in data_files.iter_formats()}
    return [
        (way, makers[f".csv.{ending}"]())
        for way, ending in (("gzip", "gz"), ("bz2", "bz2"), ("xz", "xz"), ("zip", "zip"))
    ]


def _hang(_: Path) -> None:
    while True:
        pass


def _crash(_: Path) -> None:
    os.abort()


def _grow(_: Path) -> None:
    bytearray(300 << 20)


def _print_controls(_: Path) -> None:
    os.write(1, b"\x1b[31m")


def _lose(_: Path) -> None:
    raise Disagreement("lost")


def _end_untyped(_: Path) -> None:
    raise KeyError("x")


FAULTS = {
    "hang": _hang,
    "crash": _crash,
    "memory": _grow,
    "terminal": _print_controls,
    "silent": _lose,
    "untyped": _end_untyped,
    "read": len,
}


@pytest.mark.parametrize("result", FAULTS)
def test_the_driver_sees_every_kind_of_fault(result: str) -> None:
    script = (
        "import sys; from tests.fuzz.test_fuzz import FAULTS; from tests.fuzz.execute import Worker\n"
        "from tests.fuzz.targets import Target, put_as\n"
        "put = put_as('rows.csv')\n"
        "act = FAULTS[sys.argv[1]] if sys.argv[1] != 'read' else (lambda path: path.read_bytes())\n"
        "worker = Worker({'x': Target('x', [b'a', b'b'], ('bytes',), put, [act])}, 1)\n"
        "print(*(worker.run('x', index).result for index in range(2))); worker.close()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH", "")]))}
    process = subprocess.run(
        [sys.executable, "-c", script, result], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.stdout.split() == [result, result], process.stderr


def test_cases_of_one_fault_are_told_as_one() -> None:
    first, second = (Outcome("data/csv", n, "untyped", f"KeyError: {n}", "data/read.py:3") for n in (1, 2))
    assert first.kind == second.kind
    assert not first.is_fine
