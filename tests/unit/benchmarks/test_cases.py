"""The measured cases."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import cases as module
from benchmarks.cases import check_packages, list_cases
from benchmarks.worker import RUNNERS, find_runner
from submillion.errors import ConfigError


def names(kind: Any, **settings: Any) -> list[str]:
    chosen = {"device": "cpu", "base": "minilm-l6", "peers": True, "batch_size": 32, **settings}
    return [case.name for case in list_cases(kind, **chosen)]


def test_peers_are_measured_only_where_they_are_wanted() -> None:
    assert names("train", peers=False) == ["submillion"]
    assert names("score", peers=False) == ["submillion bf16", "submillion int8"]
    assert names("score", peers=False, device="cuda") == ["submillion bf16"]


def test_every_peer_of_the_comparison_is_there() -> None:
    groups = {case.group for kind in ("train", "score") for case in _list(kind)}
    assert groups == {
        *("", "trainer as published", "trainer at its best", "trainer tuned by hand", "pipeline", "padded loop bf16"),
        *("ONNX Runtime fp32", "ONNX Runtime int8", "sentence-transformers"),
    }


def _list(kind: Any, device: str = "cpu", batch_size: int = 32) -> list[module.Case]:
    return list_cases(kind, device=device, base="minilm-l6", peers=True, batch_size=batch_size)


def test_sentence_transformers_is_a_peer_of_its_own_model_alone() -> None:
    assert "sentence-transformers" in names("score")
    assert "sentence-transformers" not in names("score", base="roberta-base-random")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("batch_size", [4, 32, 256])
def test_all_trainers_make_the_same_optimizer_steps(device: str, batch_size: int) -> None:
    trainers = [case for case in _list("train", device, batch_size) if case.is_peer]
    assert all(batch_size % case.options["micro_batch"] == 0 for case in trainers)
    published = [case.options["pad_to"] for case in trainers if case.group == "trainer as published"]
    assert published == [192]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_names_are_distinct_and_runners_exist(device: str) -> None:
    listed = [case for kind in ("train", "score") for case in _list(kind, device)]
    assert len({case.name for case in listed}) == len(listed)
    assert {case.runner for case in listed} <= RUNNERS.keys()


@pytest.mark.parametrize("name", sorted(RUNNERS))
def test_runners_can_be_imported_without_the_peers(name: str) -> None:
    assert callable(find_runner(name))


def test_missing_peers_are_named_with_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name.startswith("onnx") else object())
    with pytest.raises(ConfigError, match="onnx, onnxruntime, onnxscript") as caught:
        check_packages(_list("score"))
    assert "pip install -r benchmarks/requirements.txt" in caught.value.hint
    check_packages(_list("train"))
