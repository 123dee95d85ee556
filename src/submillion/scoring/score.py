"""Scoring: packed computation of logits for features, in the order given."""

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

if TYPE_CHECKING:  # Scoring needs no transformers, whose import takes longer than scoring a text.
    from submillion.model.encoder import Classifier
    from submillion.model.merged import MergedClassifier

# Scoring keeps no activations, so its passes can be larger than in training.
SCORE_TOKENS_FACTOR = 2


def score(
    classifier: Classifier | MergedClassifier,
    features: Sequence[Features],
    *,
    max_tokens: int,
    on_progress: Callable[[int], None] | None = None,
    processes: Processes = ALONE,
) -> NDArray[np.float32]:
    """Return logits, float32 (n, C), where row i belongs to features i.

    A text that is read in chunks gets the mean of its chunks' logits. The temperature keeps its meaning, and with a
    linear head the result equals the head's logits for the mean of the chunks' states. One confident chunk outweighs
    several uninformative ones, whereas a mean of probabilities would limit its influence.

    Args:
        classifier: The model, whose training flag is restored afterwards.
        features: Encoded records.
        max_tokens: Largest number of tokens per forward pass.
        on_progress: Function called with the number of records done.
        processes: Processes that each score a share of the records; every process gets all logits.

    Raises:
        RunError: Logits are not finite. The message gives the ids and is the same on all processes.
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
    """Score each chunk as a separate text, and return the mean per text; the arguments are those of `score`."""
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
    # Records are dealt by length, so that the shares have about the same number of tokens. Every process knows all
    # shares.
    ordered = np.argsort([len(item) for item in features], kind="stable")
    shares = [ordered[rank :: processes.count] for rank in range(processes.count)]
    mine = [features[row] for row in shares[processes.rank]]

    def show(scored: int) -> None:
        if on_progress is not None:
            on_progress(min(scored * processes.count, len(features)))

    # Gathered tensors need one shape, that of the first share, which is the largest.
    sent = torch.zeros(len(shares[0]), classifier.plan.num_labels)
    with processes.acting_together():
        sent[: len(mine)] = torch.from_numpy(score(classifier, mine, max_tokens=max_tokens, on_progress=show))
    logits = np.empty((len(features), classifier.plan.num_labels), dtype=np.float32)
    for rows, scored in zip(shares, processes.gather(sent).numpy(), strict=True):
        logits[rows] = scored[: len(rows)]
    return logits
