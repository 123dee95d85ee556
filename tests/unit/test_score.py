from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from submillion.errors import RunError
from submillion.score import score
from tiny_classifiers import build_tiny_classifier, make_features


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
