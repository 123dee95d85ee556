"""Draw rows from a language model, many at a time, each from separate random numbers.

A row's random numbers depend only on its seed and the position in it, so neither other rows nor a restart change them.
Other rows in the batch can only change the rounding of the logits, which changes about one draw in a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from submillion.augment.language_model import LanguageModel
from submillion.config.generate import SampleSettings
from submillion.model.dropout import mix_64

_TOP = 1024
"""Number of tokens that are sorted first; the whole vocabulary is sorted only if they do not hold the nucleus."""


@dataclass(frozen=True)
class Start:
    """The beginning of one row.

    Attributes:
        ids: Token ids of the beginning, the start token first.
        seed: Seed for the row's random numbers, 63 bits.
        num_tokens: Most tokens to draw.
    """

    ids: Sequence[int]
    seed: int
    num_tokens: int


def draw_uniform(seed: int, position: int) -> float:
    """Return the random number of a row at a position, uniform in [0, 1)."""
    return (mix_64(mix_64(seed) ^ (position + 1)) >> 11) / 2.0**53


def sample_rows(
    language_model: LanguageModel, starts: Sequence[Start], settings: SampleSettings
) -> list[tuple[list[int], bool]]:
    """Return the tokens drawn for each start, and whether the row ended by itself.

    Rows are padded on the left, and finished rows leave the batch. The logits get the repetition penalty, then the
    temperature, then top-p.

    Args:
        language_model: Language model in float32.
        starts: Beginnings of rows, which are sampled together.
        settings: Settings of sampling.
    """
    with torch.inference_mode():
        return _Sampling(language_model, starts, settings).run()


class _Sampling:
    """A batch in progress. Finished rows are removed once they are half of it."""

    def __init__(self, language_model: LanguageModel, starts: Sequence[Start], settings: SampleSettings) -> None:
        self.model, self.end_id = language_model.model, language_model.end_id
        self.starts, self.settings = starts, settings
        self.device = next(self.model.parameters()).device
        self.drawn: list[list[int]] = [[] for _ in starts]
        self.has_ended = [False] * len(starts)
        widest = max(len(start.ids) for start in starts)
        rows = [torch.tensor(list(start.ids)) for start in starts]
        self.ids = torch.stack([pad(row, (widest - len(row), 0), value=self.end_id) for row in rows]).to(self.device)
        mask = [pad(torch.ones(len(row), dtype=torch.long), (widest - len(row), 0)) for row in rows]
        self.mask = torch.stack(mask).to(self.device)
        size = self.model.get_input_embeddings().weight.shape[0]
        self.seen = torch.zeros(len(starts), size, dtype=torch.bool)
        for row, start in enumerate(starts):
            # The start token is not part of the text. If it also ends rows, a penalty would keep them from ending.
            self.seen[row, list(start.ids[1:])] = True
        self.live = list(range(len(starts)))

    def run(self) -> list[tuple[list[int], bool]]:
        ids, cache = self.ids, None
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        active = list(self.live)
        for position in range(max(start.num_tokens for start in self.starts)):
            output = self.model(
                input_ids=ids,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            chosen = self._draw(output.logits[:, -1].float().cpu(), position)
            active = [row for row in active if self._take(row, chosen[self.live.index(row)], position)]
            if not active:
                break
            keep = list(range(len(self.live)))
            if 2 * len(active) <= len(self.live):
                keep = [self.live.index(row) for row in active]
                index = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(index)
                self.mask, positions, self.seen = self.mask[index], positions[index], self.seen[index.cpu()]
                self.live = active.copy()
            ids = torch.tensor([[chosen[place]] for place in keep], device=self.device)
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
            positions = positions[:, -1:] + 1
        return list(zip(self.drawn, self.has_ended, strict=True))

    def _take(self, row: int, token: int, position: int) -> bool:
        """Add a token to a row; return whether the row continues."""
        if token == self.end_id:
            self.has_ended[row] = True
            return False
        self.drawn[row].append(token)
        self.seen[self.live.index(row), token] = True
        return position + 1 < self.starts[row].num_tokens

    def _draw(self, logits: torch.Tensor, position: int) -> list[int]:
        settings = self.settings
        logits = penalise_repetition(logits, self.seen, settings.repetition_penalty) / settings.temperature
        uniform = torch.tensor(
            [draw_uniform(self.starts[row].seed, position) for row in self.live], dtype=torch.float64
        )
        return draw_tokens(logits, uniform, settings.top_p)


def penalise_repetition(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make tokens that are already in the row less probable.

    Positive logits are divided by the penalty and negative ones multiplied (Keskar et al., "CTRL", arXiv 1909.05858,
    section 4.1, with the sign handled as transformers does).

    Args:
        logits: Logits, shape (B, V).
        seen: Whether a token is in the row, shape (B, V), bool.
        penalty: Penalty; 1 changes nothing.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw_tokens(logits: torch.Tensor, uniform: torch.Tensor, top_p: float) -> list[int]:
    """Draw a token of each row from its nucleus: the fewest most probable tokens whose total reaches `top_p`.

    The drawn token is the one at which the cumulative probability, from the most probable token on, passes the random
    number. Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (arXiv 1904.09751), section 3.1.

    Args:
        logits: Logits, shape (B, V), float32.
        uniform: Random numbers, shape (B,), float64, in [0, 1).
        top_p: Total probability of the nucleus, above 0 and at most 1.
    """
    probabilities = logits.double().softmax(dim=1)
    size = probabilities.shape[1]
    count = min(_TOP, size) if top_p < 1 else size
    values, order = _sort_top(probabilities, count)
    totals = values.cumsum(dim=1)
    if count < size and bool((totals[:, -1] < top_p).any()):
        values, order = _sort_top(probabilities, size)
        totals = values.cumsum(dim=1)
    is_inside = (totals - values) < top_p
    totals = totals.masked_fill(~is_inside, torch.inf)
    mass = (values * is_inside).sum(dim=1)
    place = (totals <= (uniform * mass)[:, None]).sum(dim=1)
    # Rounding of the total must not lead past the last token of the nucleus.
    place = place.minimum(is_inside.sum(dim=1) - 1)
    tokens: list[int] = order.gather(1, place[:, None])[:, 0].tolist()
    return tokens


def _sort_top(probabilities: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest probabilities, descending, and their tokens; among equals the lower token comes first."""
    if count == probabilities.shape[1]:
        values, order = probabilities.sort(dim=1, descending=True, stable=True)
        return values, order
    # The sort is not stable: equal probabilities at full precision are rare, and then either order is right.
    values, order = probabilities.topk(count, dim=1)
    return values, order
