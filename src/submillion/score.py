"""Scoring: logits for features, packed, in the order given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from submillion.batches import Features, pack, split_micro_batches
from submillion.errors import RunError

if TYPE_CHECKING:  # Scoring itself needs no transformers, which take longer to import than a text to score.
    from submillion.model.encoder import Classifier
    from submillion.model.merged import MergedClassifier

# Scoring keeps no activations, so its passes can be larger than training's.
SCORE_TOKENS_FACTOR = 2


def score(
    classifier: Classifier | MergedClassifier,
    features: Sequence[Features],
    *,
    max_tokens: int,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return logits, float32 (n, C), row i for features i.

    Args:
        classifier: Its training flag is restored afterwards.
        features: Encoded records.
        max_tokens: Tokens per forward pass.
        on_progress: Called with the number of records done.

    Raises:
        RunError: Logits that are not finite, with the ids of their records.
    """
    logits = np.empty((len(features), classifier.plan.num_labels), dtype=np.float32)
    is_scored = np.zeros(len(features), dtype=np.bool_)
    device = classifier.device
    places = {id(item): row for row, item in enumerate(features)}
    was_training = classifier.training
    classifier.eval()
    done = 0
    try:
        with torch.inference_mode():
            for part in split_micro_batches(features, max_tokens):
                batch = pack(part)
                rows = np.array([places[id(part[i])] for i in batch.order])
                logits[rows] = classifier(batch.to(device)).float().cpu().numpy()
                is_scored[rows] = True
                done += len(part)
                if on_progress is not None:
                    on_progress(done)
    finally:
        classifier.train(was_training)
    assert is_scored.all(), "a record was not scored"
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise RunError(
            f"the logits of {len(broken):,} records are not finite, such as of {features[broken[0]].id!r}",
            hint="The model has diverged: lower train.learning_rate or set train.clip_norm, and start again.",
        )
    return logits
