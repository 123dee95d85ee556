from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from submillion.encoding.text_encoder import Features
from submillion.metrics import stats
from submillion.pipeline.write_evaluations import NUM_TRAIN_SAMPLE, choose_train_sample, write_train_sample
from submillion.run.folder import RunDir
from submillion.storage.files import read_json


def make_features(number: int) -> list[Features]:
    return [Features(str(n), np.array([1], dtype=np.int32), n % 3, False, n) for n in range(number)]


def test_the_sample_of_training_rows_is_seeded_and_in_their_order() -> None:
    rows = make_features(5 * NUM_TRAIN_SAMPLE)
    sample = choose_train_sample(rows, seed=1)
    places = [int(item.id) for item in sample]
    assert len(places) == len(set(places)) == NUM_TRAIN_SAMPLE
    assert places == sorted(places)
    assert abs(np.mean(places) / len(rows) - 0.5) < 0.05  # from everywhere among the rows
    assert [item.id for item in choose_train_sample(rows, seed=1)] == [item.id for item in sample]
    assert [item.id for item in choose_train_sample(rows, seed=2)] != [item.id for item in sample]
    assert choose_train_sample(rows[:7], seed=0) == rows[:7]


def test_the_figures_of_the_sample_are_its_own(tmp_path: Path) -> None:
    sample = make_features(4)
    logits = np.array([[3, 0, 0], [0, 2, 0], [1, 0, 0], [0, 4, 0]], dtype=np.float32)  # labels are 0, 1, 2, 0
    figures = write_train_sample(RunDir(tmp_path), sample, logits, num_train=9, seed=3)
    assert read_json(tmp_path / "evaluation/train.sample.json") == figures
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_interval"] == list(stats.wilson_interval(2, 4))
    assert (figures["num_records"], figures["num_train"], figures["seed"]) == (4, 9, 3)
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert figures["loss"] == pytest.approx(-shifted[np.arange(4), [0, 1, 2, 0]].mean())
