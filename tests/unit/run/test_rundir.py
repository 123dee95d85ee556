"""The run folder: one process at a time, and one list of what belongs to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion.errors import ConfigError, RunError
from submillion.run.folder import RunDir, refuse_links, refuse_overwriting
from submillion.storage.files import hold_folder


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with hold_folder(lock, doing="training"):
        second = hold_folder(lock, doing="training", hint="Later.")
        with pytest.raises(RunError, match="another process is training in this folder") as caught, second:
            pass
        assert caught.value.where == str(tmp_path)
        assert caught.value.hint == "Later."
    with hold_folder(lock, doing="training"):
        pass


def list_places(run: RunDir) -> dict[str, Path]:
    """Return every path of a run that has a name in the code."""
    properties = [name for name, value in vars(RunDir).items() if isinstance(value, property)]
    values = {name: getattr(run, name) for name in properties}
    return {name: value for name, value in values.items() if isinstance(value, Path)}


def test_every_place_of_a_run_is_among_its_files_or_folders(tmp_path: Path) -> None:
    """A place that is missing there could be a link, or be overwritten by an output."""
    run = RunDir(tmp_path)
    places = set(list_places(run).values())
    assert len(places) > 15
    assert places | {run.evaluation("test").parent} == {*run.files, *run.folders}


@pytest.mark.parametrize("name", sorted(list_places(RunDir(Path()))))
def test_no_place_of_a_run_is_a_link_or_an_output(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("name: run\n")
    run.manifest.write_text("{}")
    place = list_places(run)[name]
    with pytest.raises(ConfigError, match="belongs to the run"):
        refuse_overwriting(place, where="--out")
    place.unlink(missing_ok=True)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError) as caught:
        refuse_links(run)
    assert caught.value.where == str(place)
