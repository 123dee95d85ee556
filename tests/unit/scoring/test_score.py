from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from submillion.errors import RunError
from submillion.scoring.score import score
from tests.tiny_classifiers import build_tiny_classifier, make_features


def test_rows_come_back_in_the_order_given(tiny_bert: Path) -> None:
    classifier = build_tiny_classifier(tiny_bert, head="linear").classifier
    features = make_features()
    done: list[int] = []
    together = score(classifier, features, max_tokens=48, on_progress=done.append)
    alone = np.concatenate([score(classifier, [item], max_tokens=48) for item in features])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert done[-1] == len(features)


def test_logits_that_are_not_finite_name_a_record(tiny_bert: Path) -> None:
    tiny = build_tiny_classifier(tiny_bert, head="linear")
    head = tiny.classifier.head
    assert head is not None
    with torch.no_grad():
        head.linear.weight.fill_(float("inf"))
    features = make_features()
    with pytest.raises(RunError, match=f"of {len(features)} records are not finite, such as of '{features[0].id}'"):
        score(tiny.classifier, features, max_tokens=64)


def test_a_text_in_chunks_has_the_mean_of_their_logits_and_others_are_untouched(tiny_bert: Path) -> None:
    classifier = build_tiny_classifier(tiny_bert, head="linear").classifier
    plain = make_features((9, 12, 12, 7, 5, 31))
    parts = tuple(item.input_ids for item in plain[1:4])
    long = replace(plain[1], input_ids=parts[0], chunks=parts)
    done: list[int] = []
    found = score(classifier, [plain[0], long, *plain[4:]], max_tokens=48, on_progress=done.append)
    alone = np.concatenate([score(classifier, [item], max_tokens=48) for item in plain])
    np.testing.assert_allclose(found, [alone[0], alone[1:4].mean(0), alone[4], alone[5]], atol=1e-5)
    assert not np.allclose(found[1], alone[1], atol=1e-2)
    assert done[-1] == 4
    assert done == sorted(done)


def test_a_text_of_one_piece_has_the_same_bits_beside_texts_in_chunks(tiny_bert: Path) -> None:
    classifier = build_tiny_classifier(tiny_bert, head="linear").classifier
    first, second, third = make_features((9, 9, 9))
    apart = score(classifier, [first, second, third], max_tokens=48)
    long = replace(second, chunks=(second.input_ids, third.input_ids))
    together = score(classifier, [first, long], max_tokens=48)
    np.testing.assert_array_equal(together[0], apart[0])
