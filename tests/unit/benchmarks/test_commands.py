"""Whole commands are timed, and the order of their output is checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.commands import Command, time_command, time_in_turn
from benchmarks.memory import read_peak_memory
from benchmarks.timeline import check_order
from submillion.errors import RunError
from submillion.progress import Silent


def test_time_and_memory_are_those_of_the_command() -> None:
    size = read_peak_memory("cpu")["peak_rss_bytes"] + (100 << 20)
    code = f"import time; held = bytearray({size}); held[::4096] = b'x' * len(held[::4096]); time.sleep(0.2)"
    timing = time_command(["-c", code], os.environ)
    assert timing.seconds > 0.2
    assert timing.peak_rss_bytes > size


def test_memory_below_that_of_the_bench_is_not_known() -> None:
    assert time_command(["-c", ""], os.environ).peak_rss_bytes == 0


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RunError, match=r"ended in 3: .*no such luck"):
        time_command(["-c", "import sys; sys.stderr.write('no such luck'); sys.exit(3)"], os.environ)


def test_commands_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def write(letter: str) -> tuple[str, str]:
        return "-c", f"open({str(log)!r}, 'a').write({letter!r})"

    commands = [Command("first", write("A"), "a"), Command("second", write("B"), "b", num_rows=5, is_peer=True)]
    cases = time_in_turn(commands, os.environ, 3, Silent())
    assert log.read_text() == "ABABAB"
    assert len(cases["first"]["rounds_s"]) == 3
    assert "rows_per_s" not in cases["first"]
    second = cases["second"]
    assert second["rows_per_s"] == 5 / second["seconds"]
    assert second["is_peer"] is True


@pytest.mark.parametrize("ids", [["0", "2", "1"], ["0", "1"], ["0", "1", "2", "3"]])
def test_predictions_out_of_order_are_refused(ids: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("ID,Label\n" + "".join(f"{number},1\n" for number in ids))
    with pytest.raises(RunError, match="not in their order"):
        check_order(out, 3)
    out.write_text("ID,Label\n0,1\n1,1\n2,0\n")
    check_order(out, 3)
