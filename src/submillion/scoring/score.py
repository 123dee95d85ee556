"""Scoring: logits for features, packed, in the order given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from submillion.encoding.batches import list_chunks, pack, split_micro_batches
from submillion.encoding.text_encoder import Features, sum_up
from submillion.errors import RunError
from submillion.training.collective import ALONE, Processes

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
    processes: Processes = ALONE,
) -> NDArray[np.float32]:
    """Return logits, float32 (n, C), row i for features i.

    A text that is read in chunks has the mean of its chunks' logits. So the temperature keeps its meaning, with a
    linear head they are what the head says of the mean of the chunks' states, and a chunk that is sure of something
    outweighs several that say nothing, where a mean of probabilities would bound its say.

    Args:
        classifier: Its training flag is restored afterwards.
        features: Encoded records.
        max_tokens: Tokens per forward pass.
        on_progress: Called with the number of records done.
        processes: Those that score a share of the records each; every one gets all logits.

    Raises:
        RunError: Logits that are not finite, with the ids of their records. The same on all processes.
    """
    if any(item.chunks for item in features):
        return _score_chunks(classifier, features, max_tokens=max_tokens, on_progress=on_progress, processes=processes)
    if processes.count > 1:
        return _score_shares(classifier, features, max_tokens=max_tokens, on_progress=on_progress, processes=processes)
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


def _score_chunks(
    classifier: Classifier | MergedClassifier,
    features: Sequence[Features],
    *,
    max_tokens: int,
    on_progress: Callable[[int], None] | None,
    processes: Processes,
) -> NDArray[np.float32]:
    """Score each chunk as a text of its own, and return the mean of each text's; arguments as `score`."""
    pieces = [piece for item in features for piece in list_chunks(item)]
    firsts = sum_up([max(1, len(item.chunks)) for item in features])

    def show(scored: int) -> None:
        if on_progress is not None:
            on_progress(scored * len(features) // len(pieces))

    logits = score(classifier, pieces, max_tokens=max_tokens, on_progress=show, processes=processes)
    sums = np.add.reduceat(logits.astype(np.float64), firsts[:-1], axis=0)
    return (sums / np.diff(firsts)[:, None]).astype(np.float32)


def _score_shares(
    classifier: Classifier | MergedClassifier,
    features: Sequence[Features],
    *,
    max_tokens: int,
    on_progress: Callable[[int], None] | None,
    processes: Processes,
) -> NDArray[np.float32]:
    # Dealt out by length, so that the shares are about as long in tokens; every process knows everyone's rows.
    ordered = np.argsort([len(item) for item in features], kind="stable")
    shares = [ordered[rank :: processes.count] for rank in range(processes.count)]
    mine = [features[row] for row in shares[processes.rank]]

    def show(scored: int) -> None:
        if on_progress is not None:
            on_progress(min(scored * processes.count, len(features)))

    # Gathered tensors have one shape: that of the first share, which is the largest.
    sent = torch.zeros(len(shares[0]), classifier.plan.num_labels)
    with processes.acting_together():
        sent[: len(mine)] = torch.from_numpy(score(classifier, mine, max_tokens=max_tokens, on_progress=show))
    logits = np.empty((len(features), classifier.plan.num_labels), dtype=np.float32)
    for rows, scored in zip(shares, processes.gather(sent).numpy(), strict=True):
        logits[rows] = scored[: len(rows)]
    return logits
