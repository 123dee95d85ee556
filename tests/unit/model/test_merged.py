"""Merged scoring against the classifier that was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from submillion.budget.families import FAMILIES
from submillion.encoding.batches import pack
from submillion.encoding.text_encoder import Features
from submillion.errors import ModelError
from submillion.kernels.native import find_kernels
from submillion.model.base_files import read_config
from submillion.model.merged import MergedClassifier, explain_unmerged, load_merged
from submillion.run.folder import RunDir
from submillion.scoring.score import score
from tests.tiny_classifiers import Tiny, build_tiny_classifier, build_wide_base, make_features, save_run_files

pytestmark = pytest.mark.skipif(
    find_kernels().library is None, reason=f"the CPU kernels do not run here: {find_kernels().reason}"
)
LENGTHS = (1, 2, 5, 9, 40, 9, 3, 17, 64, 9, 33, 63, 48, 16, 32)
Wide = Callable[[str], Path]


@pytest.fixture(scope="module")
def wide_base(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Wide:
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            built[family] = build_wide_base(tiny_base(family), tmp_path_factory.mktemp("wide") / family)
        return built[family]

    return get


def load(tiny: Tiny, run: RunDir, **options: Any) -> MergedClassifier:
    config = read_config(tiny.base)
    assert explain_unmerged(tiny.plan, config, dtype=torch.bfloat16) == ""
    return load_merged(
        tiny.plan,
        config,
        weights=[tiny.base / "model.safetensors"],
        adapter=run.adapter / "adapter_model.safetensors",
        head=run.head if tiny.plan.head == "linear" else None,
        pooling=options.pop("pooling", "mean"),
        **options,
    )


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.kernels])
@pytest.mark.parametrize(
    "settings",
    [
        {"head": "native"},
        {"head": "linear"},
        {"head": "linear", "pooling": "first", "targets": ("query", "ffn_out"), "rank": 3, "variant": "rslora"},
        {"head": "native", "bias": "all"},
        {"head": "linear", "bias": "lora_only", "targets": ("key",)},
    ],
    ids=str,
)
def test_merged_gives_the_logits_of_the_trained_classifier(
    wide_base: Wide, tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    tiny = build_tiny_classifier(wide_base(family), **settings)
    run = save_run_files(tiny, tmp_path)
    features = make_features(LENGTHS)
    exact = score(tiny.classifier, features, max_tokens=4096)
    low = score(
        build_tiny_classifier(wide_base(family), dtype=torch.bfloat16, **settings).classifier, features, max_tokens=4096
    )
    merged = score(load(tiny, run, pooling=settings.get("pooling", "mean")), features, max_tokens=4096)
    assert distance(merged, exact) <= 1.5 * distance(low, exact) + 2e-3


def test_int8_is_close(wide_base: Wide, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(wide_base("bert"), head="linear")
    run = save_run_files(tiny, tmp_path)
    features = make_features(LENGTHS)
    exact = score(tiny.classifier, features, max_tokens=4096)
    quantised = score(load(tiny, run, precision="int8"), features, max_tokens=4096)
    assert 1e-5 < distance(quantised, exact) < 0.05


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_logits_do_not_depend_on_what_is_scored_beside(wide_base: Wide, tmp_path: Path, precision: str) -> None:
    tiny = build_tiny_classifier(wide_base("roberta"))
    merged = load(tiny, save_run_files(tiny, tmp_path), precision=precision)
    features = make_features(LENGTHS)
    together = score(merged, features, max_tokens=4096)
    alone = np.concatenate([score(merged, [item], max_tokens=4096) for item in features])
    small = score(merged, features, max_tokens=70)
    # The float32 products of the head are the one thing whose rounding depends on the number of records.
    np.testing.assert_allclose(alone, together, rtol=0, atol=3e-6)
    np.testing.assert_allclose(small, together, rtol=0, atol=3e-6)


def test_checkpoints_with_old_names_of_norms_load(wide_base: Wide, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(wide_base("bert"), head="linear")
    run = save_run_files(tiny, tmp_path / "run")
    features = make_features(LENGTHS)
    wanted = score(load(tiny, run), features, max_tokens=4096)
    tensors = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load_file(tiny.base / "model.safetensors").items()
    }
    old = tmp_path / "old"
    old.mkdir()
    save_file(tensors, old / "model.safetensors")
    (old / "config.json").write_bytes((tiny.base / "config.json").read_bytes())
    assert np.array_equal(score(load(dataclasses.replace(tiny, base=old), run), features, max_tokens=4096), wanted)


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(next(name for name in t if "lora_B" in name)), "missing"),
        (lambda t: t.update(other=torch.zeros(2)), "not expected"),
        (lambda t: t.update({next(iter(t)): torch.zeros(1, 64)}), "shape"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    wide_base: Wide, tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tiny = build_tiny_classifier(wide_base("bert"), head="linear")
    run = save_run_files(tiny, tmp_path)
    change(run.adapter / "adapter_model.safetensors", edit)
    with pytest.raises(ModelError, match=message):
        load(tiny, run)


def test_damaged_and_missing_files_are_named(wide_base: Wide, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(wide_base("bert"), head="linear")
    run = save_run_files(tiny, tmp_path)
    run.head.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="damaged"):
        load(tiny, run)
    run.head.unlink()
    with pytest.raises(ModelError, match="missing"):
        load(tiny, run)


def test_variants_that_do_not_merge_say_so(wide_base: Wide) -> None:
    tiny = build_tiny_classifier(wide_base("bert"), head="linear", variant="pissa")
    assert "pissa" in explain_unmerged(tiny.plan, read_config(tiny.base), dtype=torch.bfloat16)


def test_an_empty_list_scores_to_nothing(wide_base: Wide, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(wide_base("bert"), head="linear")
    none: list[Features] = []
    assert score(load(tiny, save_run_files(tiny, tmp_path)), none, max_tokens=64).shape == (0, 4)
    assert pack(make_features((3,))).num_records == 1
