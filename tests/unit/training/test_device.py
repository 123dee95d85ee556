from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion.errors import ConfigError
from submillion.training import device
from submillion.training.device import count_cpus, has_fast_bf16, open_device

V2 = "/sys/fs/cgroup/cpu.max"
V1_QUOTA = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
V1_PERIOD = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "affinity", "expected"),
    [
        ({V2: "max 100000\n"}, 6, 6),
        ({V2: "200000 100000\n"}, 6, 2),
        ({V2: "150000 100000\n"}, 6, 2),
        ({V2: "10000 100000\n"}, 6, 1),
        ({V2: "800000 100000\n"}, 3, 3),
        ({V1_QUOTA: "-1\n", V1_PERIOD: "100000\n"}, 6, 6),
        ({V1_QUOTA: "250000\n", V1_PERIOD: "100000\n"}, 6, 3),
        ({V2: "broken\n"}, 6, 6),
        ({}, 6, 6),
    ],
)
def test_threads_follow_affinity_and_quota(
    files: dict[str, str], affinity: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, *_: Any, **__: Any) -> str:
        try:
            return files[str(path)]
        except KeyError:
            raise FileNotFoundError(str(path)) from None

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    assert count_cpus() == expected


def fake_machine(monkeypatch: pytest.MonkeyPatch, *, fast: bool = False, gpu: bool = False, bf16: bool = True) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)


@pytest.mark.parametrize(
    ("precision", "fast", "chosen", "note"),
    [
        ("auto", True, "bf16", None),
        ("auto", False, "fp32", None),
        ("fp32", True, "fp32", None),
        ("bf16", True, "bf16", None),
        ("bf16", False, "bf16", "bf16 will be slow"),
        ("fp16", True, "bf16", "fp16 runs as bf16 on this CPU, which has bf16"),
        ("fp16", False, "fp32", "fp16 runs as fp32 on this CPU, which has no bf16"),
    ],
)
def test_precision_on_a_cpu(
    precision: Any, fast: bool, chosen: str, note: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_machine(monkeypatch, fast=fast)
    opened = open_device(precision, 1)
    assert (opened.device.type, opened.precision) == ("cpu", chosen)
    assert opened.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[chosen]
    assert len(opened.notes) == (note is not None)
    assert note is None or note in opened.notes[0]


@pytest.mark.parametrize(
    ("precision", "bf16", "chosen", "num_notes"),
    [("auto", True, "bf16", 0), ("auto", False, "fp32", 0), ("fp16", True, "fp16", 0), ("fp32", True, "fp32", 0)],
)
def test_precision_on_a_gpu(
    precision: Any, bf16: bool, chosen: str, num_notes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_machine(monkeypatch, gpu=True, bf16=bf16)
    opened = open_device(precision, 1)
    assert (opened.device.type, opened.precision, len(opened.notes)) == ("cuda", chosen, num_notes)


def test_bf16_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, gpu=True, bf16=False)
    with pytest.raises(ConfigError, match="no bf16"):
        open_device("bf16", 1)


def test_threads_are_set_as_asked_or_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_device("fp32", 3).threads == torch.get_num_threads() == 3
    monkeypatch.setattr(device, "count_cpus", lambda: 2)
    assert open_device("fp32").threads == torch.get_num_threads() == 2


@pytest.mark.parametrize(("num_cpus", "num_sharing", "expected"), [(8, 2, 4), (7, 2, 3), (2, 4, 1)])
def test_processes_of_one_machine_divide_its_threads(
    num_cpus: int, num_sharing: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "count_cpus", lambda: num_cpus)
    assert open_device("fp32", num_sharing=num_sharing).threads == torch.get_num_threads() == expected
    assert open_device("fp32", 3, num_sharing=num_sharing).threads == 3


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_fast_bf16_is_read_from_the_cpus_capabilities(
    capabilities: dict[str, Any], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "read_cpu_capabilities", lambda: capabilities)
    assert has_fast_bf16() is fast
