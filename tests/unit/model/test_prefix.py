"""States of the frozen first layers, computed once: the same training, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion.config.run import TrainConfig
from submillion.kernels.native import find_kernels
from submillion.model.encoder import Classifier
from submillion.model.prefix import PrefixStore, reuse_prefix
from submillion.training.loop import train_steps
from submillion.training.optim import build_optimizer
from tests.tiny_classifiers import build_tiny_classifier, build_wide_base, make_features

pytestmark = pytest.mark.skipif(
    find_kernels().library is None, reason=f"the CPU kernels do not run here: {find_kernels().reason}"
)
FEATURES = make_features((5, 9, 40, 9, 3, 17, 64, 9, 33, 12, 7, 21))
SETTINGS = TrainConfig(epochs=3, batch_size=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def base(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wide_base(tiny_base("bert"), tmp_path_factory.mktemp("wide") / "bert")


def build(base: Path, **settings: Any) -> Classifier:
    settings = {"dropout": 0.0, "layers": (1,), **settings}
    return build_tiny_classifier(base, head="linear", dtype=torch.bfloat16, **settings).classifier


def train(classifier: Classifier, folder: Path | None) -> tuple[list[float], dict[str, torch.Tensor]]:
    optimizer = build_optimizer(classifier.trainable_parameters(), SETTINGS)
    with nullcontext("") if folder is None else reuse_prefix(classifier, FEATURES, folder):
        losses = [result.loss for result in train_steps(classifier, FEATURES, optimizer, SETTINGS, seed=0)]
    return losses, {name: p.detach().clone() for name, p in classifier.trainable_parameters().items()}


def test_training_ends_in_the_same_bytes(base: Path, tmp_path: Path) -> None:
    losses, parameters = train(build(base), None)
    kept_losses, kept_parameters = train(build(base), tmp_path)
    assert kept_losses == losses
    assert all(torch.equal(kept_parameters[name], parameters[name]) for name in parameters)


def test_other_chunks_in_every_epoch_are_not_taken_for_those_of_the_first(base: Path, tmp_path: Path) -> None:
    long = replace(FEATURES[0], chunks=(FEATURES[0].input_ids, FEATURES[1].input_ids))
    classifier = build(base)
    with reuse_prefix(classifier, [long, *FEATURES[1:]], tmp_path) as said:
        assert classifier.prefix is None
    assert "the states are computed in every epoch: each reads another chunk" in said


def test_states_are_computed_in_the_first_epoch_only(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = PrefixStore.write

    def count(self: PrefixStore, batch: Any, states: torch.Tensor) -> None:
        written.append(batch.num_records)
        write(self, batch, states)

    monkeypatch.setattr(PrefixStore, "write", count)
    train(build(base), tmp_path)
    assert sum(written) == len(FEATURES)


def test_evaluation_leaves_the_kept_states_alone(base: Path, tmp_path: Path) -> None:
    from submillion.scoring.score import score

    classifier = build(base)
    strangers = make_features((6, 8), seed=9)
    wanted = score(classifier, strangers, max_tokens=64)
    with reuse_prefix(classifier, FEATURES, tmp_path):
        # Their ids are those of training rows: in another split, ids may come again.
        assert (score(classifier, strangers, max_tokens=64) == wanted).all()


@pytest.mark.parametrize(
    ("settings", "num_layers"),
    [({}, 1), ({"layers": None}, 0), ({"dropout": 0.1}, 0), ({"bias": "all"}, 0)],
    ids=str,
)
def test_only_layers_that_neither_train_nor_drop_are_counted(
    base: Path, settings: dict[str, Any], num_layers: int
) -> None:
    assert build(base, **settings).count_frozen_layers() == num_layers


def test_no_file_is_seen_and_the_note_tells_its_size(base: Path, tmp_path: Path) -> None:
    classifier = build(base)
    with reuse_prefix(classifier, FEATURES, tmp_path) as note:
        assert "the first layer does not train" in note
        assert list(tmp_path.iterdir()) == []
        assert classifier.prefix is not None
    assert classifier.prefix is None


def test_a_full_disk_is_left_alone(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("submillion.model.prefix._DISK_SHARE", 0.0)
    classifier = build(base)
    with reuse_prefix(classifier, FEATURES, tmp_path) as note:
        assert "free on the disk" in note
        assert classifier.prefix is None


def test_rows_of_equal_ids_are_not_mixed_up(base: Path, tmp_path: Path) -> None:
    classifier = build(base)
    with reuse_prefix(classifier, [*FEATURES, FEATURES[0]], tmp_path) as note:
        assert note == ""
        assert classifier.prefix is None
