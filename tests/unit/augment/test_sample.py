"""Sampling: the draw is compared with plain formulas, and rows do not depend on each other."""

from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from submillion.augment.language_model import LanguageModel, load_language_model
from submillion.augment.sample import Start, draw_tokens, draw_uniform, penalise_repetition, sample_rows
from submillion.config.generate import SampleSettings
from tests.tiny_language_models import build_tiny_gpt2

TEXTS = ("The foreign minister told", "Oil", "A", "Shares of the company fell sharply after", "x")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(build_tiny_gpt2(tmp_path_factory.mktemp("lm") / "tiny"), name="tiny")


def make_starts(model: LanguageModel, *, seed: int = 0, num_tokens: int = 30) -> list[Start]:
    return [
        Start([model.start_id, *model.encode(text)], seed + 1000 * row, num_tokens - 4 * row)
        for row, text in enumerate(TEXTS)
    ]


def test_random_numbers_are_uniform_and_their_own() -> None:
    values = [draw_uniform(seed, position) for seed in range(100) for position in range(100)]
    assert len(set(values)) == 10_000
    assert min(values) >= 0
    assert max(values) < 1
    counts = torch.histc(torch.tensor(values, dtype=torch.float64), 10, 0, 1)
    # Chi-square with 9 degrees of freedom: 27.9 is exceeded once in a thousand times.
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 27.9


def test_the_nucleus_is_that_of_transformers() -> None:
    logits = 3 * torch.randn(50, 40, generator=torch.Generator().manual_seed(1))
    grid = torch.linspace(0, 1, 401, dtype=torch.float64)[:-1]
    for top_p in (0.3, 0.9, 1.0):
        for row in logits:
            drawn = draw_tokens(row.expand(len(grid), -1), grid, top_p)
            wanted = row[None].clone()
            if top_p < 1:
                wanted = TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), wanted)
            probabilities = wanted.double().softmax(1)[0]
            shares = torch.bincount(torch.tensor(drawn), minlength=40) / len(grid)
            assert float((shares - probabilities).abs().max()) < 2 / len(grid)


def test_the_whole_vocabulary_is_sorted_where_the_nucleus_is_wide() -> None:
    logits = torch.zeros(1, 5000)
    uniform = torch.tensor([0.999], dtype=torch.float64)
    flat = {draw_tokens(logits, torch.tensor([u], dtype=torch.float64), 0.9)[0] for u in (0.0, 0.25, 0.5, 0.75, 0.999)}
    assert len(flat) == 5
    # 0.999 of 4,500 equal tokens, or of 4,501 where the total of the first 4,500 is rounded down.
    assert draw_tokens(logits, uniform, 0.9)[0] in {4495, 4496}


def test_the_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[1, 2, 3], [4, 4, 5], [6, 7, 19]])
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter(1, ids, True)
    torch.testing.assert_close(
        penalise_repetition(logits, seen, 1.3), RepetitionPenaltyLogitsProcessor(1.3)(ids, logits)
    )


def test_a_row_does_not_depend_on_the_rows_beside_it(model: LanguageModel) -> None:
    settings = SampleSettings()
    for seed in range(5):
        starts = make_starts(model, seed=seed)
        together = sample_rows(model, starts, settings)
        assert together == [sample_rows(model, [start], settings)[0] for start in starts]
        assert together == sample_rows(model, starts[::-1], settings)[::-1]


def test_it_is_what_a_plain_loop_without_padding_and_cache_draws(model: LanguageModel) -> None:
    settings = SampleSettings(temperature=0.8, top_p=0.9, repetition_penalty=1.5)
    starts = make_starts(model, seed=7)
    for start, (drawn, ended) in zip(starts, sample_rows(model, starts, settings), strict=True):
        ids = list(start.ids)
        plain: list[int] = []
        for position in range(start.num_tokens):
            with torch.inference_mode():
                logits = model.model(input_ids=torch.tensor([ids])).logits[:, -1]
            seen = torch.zeros_like(logits, dtype=torch.bool)
            seen[0, ids[1:]] = True
            logits = penalise_repetition(logits, seen, 1.5) / 0.8
            uniform = torch.tensor([draw_uniform(start.seed, position)], dtype=torch.float64)
            token = draw_tokens(logits, uniform, 0.9)[0]
            if token == model.end_id:
                break
            ids.append(token)
            plain.append(token)
        assert drawn == plain
        assert ended == (len(drawn) < start.num_tokens)


def test_lengths_and_seeds_are_those_of_the_row(model: LanguageModel) -> None:
    first = sample_rows(model, make_starts(model, seed=1), SampleSettings())
    assert all(len(drawn) <= start.num_tokens for (drawn, _), start in zip(first, make_starts(model), strict=True))
    assert first != sample_rows(model, make_starts(model, seed=2), SampleSettings())
    assert not any(model.end_id in drawn for drawn, _ in first)
