from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from submillion.errors import ConfigError, DataError
from submillion.training import collective
from submillion.training.collective import ALONE, Processes, is_first_process, make_lone_environment, open_processes

LAUNCHED = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "ROLE_NAME": "default",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RUN_ID": "none",
}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name not in make_lone_environment():
            monkeypatch.delenv(name)


def launch(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def fake_join(monkeypatch: pytest.MonkeyPatch, *, count: int) -> None:
    state = SimpleNamespace(num_processes=count, process_index=0, device=torch.device("cpu"))
    monkeypatch.setattr(collective, "_join", lambda _: state)


def test_without_a_launcher_there_is_one_process() -> None:
    assert open_processes() is ALONE
    assert ALONE.is_first
    assert is_first_process()


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "1", "RANK": "0"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_launcher_of_one_process_is_none(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, **variables)
    assert open_processes() is ALONE


def test_one_process_needs_no_others() -> None:
    assert ALONE.exchange({"a": (1,)}) == [{"a": (1,)}]
    assert ALONE.share("x") == "x"
    assert torch.equal(ALONE.add_up(torch.ones(2)), torch.ones(2))
    assert ALONE.gather(torch.ones(2)).shape == (1, 2)
    ALONE.require_same({"a": 1}, "hint")
    error = DataError("is empty", where="rows.csv")
    with pytest.raises(DataError) as caught, ALONE.acting_together():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("size", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_state_of_one_among_several_is_an_error(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, **{size: "4"})
    fake_join(monkeypatch, count=1)
    with pytest.raises(ConfigError, match="4 processes were started, but accelerate sees 1") as caught:
        open_processes()
    assert caught.value.where == size
    assert "torchrun" in caught.value.hint


def test_a_size_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, WORLD_SIZE="two")
    with pytest.raises(ConfigError, match="two"):
        open_processes()


def test_a_size_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ValueError("MASTER_ADDR env was not set\nand more")

    monkeypatch.setattr("accelerate.state.PartialState", fail)
    launch(monkeypatch, WORLD_SIZE="2")
    with pytest.raises(ConfigError, match="cannot join the 2 that were started: MASTER_ADDR env was not set") as caught:
        open_processes()
    assert "and more" not in caught.value.message
    assert "unset WORLD_SIZE" in caught.value.hint


def test_accelerate_launch_that_starts_one_of_several_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, ACCELERATE_USE_CPU="True")
    assert open_processes() is ALONE
    launch(monkeypatch, MASTER_ADDR="127.0.0.1")
    with pytest.raises(ConfigError, match="asked for several processes and has started one"):
        open_processes()


@pytest.mark.parametrize(("num_gpus", "is_refused"), [(2, True), (4, False), (1, False)])
def test_more_processes_than_gpus_are_refused(num_gpus: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # One visible GPU can be a different one for each process.
    launch(monkeypatch, WORLD_SIZE="4", LOCAL_WORLD_SIZE="4", RANK="0", LOCAL_RANK="0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    fake_join(monkeypatch, count=4)
    if is_refused:
        with pytest.raises(ConfigError, match="4 processes on a machine with 2 GPUs"):
            open_processes()
    else:
        assert open_processes() == Processes(0, 4, 4, torch.device("cpu"))


def test_only_the_first_of_several_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    # A variable that has this name by chance does not count.
    launch(monkeypatch, RANK="1")
    assert is_first_process()
    launch(monkeypatch, WORLD_SIZE="2")
    assert not is_first_process()
    launch(monkeypatch, RANK="0")
    assert is_first_process()


def test_the_environment_of_a_lone_process_has_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    launch(monkeypatch, **LAUNCHED)
    launch(monkeypatch, ACCELERATE_USE_CPU="True", OMPI_COMM_WORLD_SIZE="2", LOCAL_FILES="stay")
    assert make_lone_environment() == {**before, "LOCAL_FILES": "stay"}
