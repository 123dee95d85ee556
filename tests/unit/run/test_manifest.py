"""The manifest of a run as a typed value, and the state that it gives a run folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from submillion.errors import RunError
from submillion.run.folder import RunDir
from submillion.run.manifest import Manifest, ManifestBase
from submillion.run.reader import count_test_evaluation, read_manifest

FILE = {
    "run_format": 1,
    "state": "complete",
    "recipe": "demo",
    "created": "2026-11-21T03:00:00+00:00",
    "seed": 3,
    "split_seed": 0,
    "base": {"name": "minilm-l6", "origin": "package", "revision": None, "weights_sha256": "53aa" * 16},
    "precision": "bf16",
    "device": "cpu",
    "threads": 2,
    "num_processes": 1,
    "notes": ["a note"],
    "versions": {"python": "3.11.9"},
    "machine": {"num_cores": 2},
    "num_test_evaluations": 1,
    "max_length": {"rule": "p99", "max_length": 64, "num_cut": 1, "num_records": 100, "mean": 20.5},
    "started_from": {"kind": "run"},
    "modules": "stock",
    "temperature": 1.25,
    "best_step": 4,
    "proof": {},
    "num_steps": 4,
    "train_s": 2.5,
    "rows_per_s": None,
    "wall_s": 3.5,
}


def write(run: RunDir, **changes: object) -> None:
    run.path.mkdir(exist_ok=True)
    values = {key: value for key, value in {**FILE, **changes}.items() if value != "absent"}
    run.manifest.write_text(json.dumps(values))


def test_what_is_read_is_written_in_the_same_words_and_order(tmp_path: Path) -> None:
    manifest = Manifest.from_json(dict(FILE), tmp_path)
    assert json.dumps(manifest.to_json()) == json.dumps(FILE)
    assert (manifest.base.name, manifest.notes, manifest.temperature) == ("minilm-l6", ("a note",), 1.25)


def test_what_a_manifest_does_not_say_stays_unsaid(tmp_path: Path) -> None:
    base = {"name": "tiny", "weights_sha256": "0" * 64}
    old = {"run_format": 1, "seed": 1, "base": base, "later": {"unknown": [1]}}
    run = RunDir(tmp_path)
    Manifest.from_json(old, tmp_path).write(run.manifest)
    kept = json.loads(run.manifest.read_text())
    assert kept["later"] == {"unknown": [1]}
    assert set(kept) == {*old, "state"}
    # What was written is read again, and counting changes that number alone.
    count_test_evaluation(run)
    assert json.loads(run.manifest.read_text()) == {**kept, "num_test_evaluations": 1}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"run_format": 2}, "run format 2"),
        ({"state": "done"}, "state is 'done'"),
        ({"temperature": 0}, "temperature is 0"),
        ({"base": {"name": "x"}}, r"base\.weights_sha256 is missing"),
    ],
)
def test_a_manifest_that_cannot_be_is_named(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    run = RunDir(tmp_path)
    write(run, **changes)
    for read in (lambda: read_manifest(run), run.state):
        with pytest.raises(RunError, match=problem) as caught:
            read()
        assert caught.value.where == str(run.manifest)


def test_a_run_has_one_of_five_states(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert run.state() == "new"
    run.path.mkdir()
    run.config.write_text("name: x\n")
    assert run.state() == "running"
    write(run, state="running", temperature="absent")
    assert run.state() == "running"
    write(run, state="running")
    assert (run.state(), run.has_weights()) == ("running", False)  # the adapter is not there
    run.adapter.mkdir()
    assert (run.state(), run.has_weights()) == ("trained", True)
    write(run, state="complete")
    assert run.state() == "finished"
    run.adapter.rmdir()  # as a search does with trials that it does not need
    assert (run.state(), run.has_weights()) == ("finished", False)
    write(run, state="pruned", temperature="absent")
    assert run.state() == "pruned"


def test_links_are_refused_before_a_state_is_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write(run)
    (tmp_path / "log.jsonl").symlink_to("/dev/null")
    with pytest.raises(RunError, match="is a link"):
        run.state()


def test_a_new_manifest_is_a_run_under_way() -> None:
    manifest = Manifest(base=ManifestBase("tiny", "folder", None, "0" * 64))
    assert manifest.to_json() == {
        "run_format": 1,
        "state": "running",
        "base": {"name": "tiny", "origin": "folder", "revision": None, "weights_sha256": "0" * 64},
    }
    assert replace(manifest, state="complete", num_steps=4).to_json()["rows_per_s"] is None
