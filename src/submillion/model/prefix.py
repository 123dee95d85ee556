"""The states of training rows below the first layer that trains, computed once and kept on disk.

If the first k layers have no trained parameters and no dropout, their states are the same in every epoch. They are
written as bfloat16 to a memory-mapped file when a record is first seen, and read afterwards. A record's states do not
depend on the batch, so the results are the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from submillion.encoding.batches import Batch
from submillion.encoding.text_encoder import Features

if TYPE_CHECKING:
    from submillion.model.encoder import Classifier

# The file may take this share of the free space on its disk.
_DISK_SHARE = 0.5
_STATE_BYTES = 2


class PrefixStore:
    """States of records, by their keys.

    Args:
        file: A file that can hold all states, open for reading and writing.
        features: The records' features.
        hidden_size: Width H of a state.
        num_layers: Number of layers that the states have passed.
    """

    def __init__(self, file: IO[bytes], features: Sequence[Features], hidden_size: int, num_layers: int) -> None:
        self.num_layers = num_layers
        lengths = np.fromiter((len(item) for item in features), dtype=np.int64, count=len(features))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        self._rows = {item.key: row for row, item in enumerate(features)}
        self._starts = starts
        self._is_kept = np.zeros(len(features), dtype=np.bool_)
        self._states = np.memmap(file, dtype=np.int16, mode="r+", shape=(max(1, int(starts[-1])), hidden_size))

    def read(self, batch: Batch) -> torch.Tensor | None:
        """Return the states of a batch, (N, H) bfloat16; None if any record is new."""
        rows = self._find_rows(batch)
        if not self._is_kept[rows].all():
            return None
        parts = [self._states[self._starts[row] : self._starts[row + 1]] for row in rows]
        return torch.from_numpy(np.concatenate(parts)).view(torch.bfloat16)

    def write(self, batch: Batch, states: torch.Tensor) -> None:
        """Keep the states of a batch, (N, H) bfloat16."""
        values = states.view(torch.int16).numpy()
        offsets = batch.offsets.numpy()
        for place, row in enumerate(self._find_rows(batch)):
            self._states[self._starts[row] : self._starts[row + 1]] = values[offsets[place] : offsets[place + 1]]
            self._is_kept[row] = True

    def _find_rows(self, batch: Batch) -> list[int]:
        return [self._rows[int(key)] for key in batch.keys]


@contextmanager
def reuse_prefix(classifier: Classifier, features: Sequence[Features], folder: Path) -> Iterator[str]:
    """Let a classifier keep the states of its frozen first layers for training rows while the block runs.

    Args:
        classifier: The model, on the CPU.
        features: The training rows, with distinct ids.
        folder: Folder on the disk where the states may take space.

    Yields:
        A sentence that says what is done; empty if nothing can be kept.
    """
    num_layers = classifier.count_frozen_layers()
    if num_layers == 0 or len({item.key for item in features}) < len(features):
        yield ""
        return
    if any(item.chunks for item in features):
        yield (
            f"{_name_layers(num_layers)} not train, but the states are computed in every epoch: each reads another "
            "chunk of a long text (model.long_texts)"
        )
        return
    hidden_size = int(classifier.hidden_size)
    needed = sum(len(item) for item in features) * hidden_size * _STATE_BYTES
    if needed > _DISK_SHARE * shutil.disk_usage(folder).free:
        yield (
            f"{_name_layers(num_layers)} not train, but the states are computed in every epoch: to keep them would take"
            f" {needed / 1e9:.1f} GB, more than half of what is free on the disk"
        )
        return
    # The file has no name, so nothing is left behind, even after a kill.
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            # The space is reserved now: if it ran out in the middle of training, the system would end the process.
            os.posix_fallocate(file.fileno(), 0, max(1, needed))
        except OSError as error:
            yield (
                f"{_name_layers(num_layers)} not train, but the states are computed in every epoch: the disk has no "
                f"{needed / 1e9:.1f} GB for them ({error.strerror})"
            )
            return
        classifier.prefix = PrefixStore(file, features, hidden_size, num_layers)
        try:
            yield (
                f"{_name_layers(num_layers)} not train: the states are computed once and kept on disk"
                f" ({needed / 1e9:.1f} GB) until the end of training"
            )
        finally:
            classifier.prefix = None


def _name_layers(count: int) -> str:
    return "the first layer does" if count == 1 else f"the first {count} layers do"
