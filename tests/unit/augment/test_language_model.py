"""Language models: blocks separate rows, loading refuses other models, and training resumes exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion.augment import finetune as finetuning
from submillion.augment.blocks import make_block_mask, make_targets, pack_rows
from submillion.augment.finetune import Finetuned, finetune
from submillion.augment.language_model import (
    build_scratch_model,
    check_rows_apart,
    digest_language_model,
    find_language_model,
    load_language_model,
)
from submillion.config.generate import GenerateSettings
from submillion.errors import DataError, ModelError, RunError
from submillion.progress import Silent
from submillion.training.device import open_device
from tests.tiny_language_models import build_tiny_gpt2

ROWS = [
    f"The {thing} of {place} {verb} on {day}."
    for thing in ("council", "team", "bank")
    for place in ("Tarvik", "Osmery", "Belcourt")
    for verb in ("met", "lost", "fell")
    for day in ("Monday", "Friday")
]


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_gpt2(tmp_path_factory.mktemp("lm") / "tiny")


def make_settings(*, full: bool = False, **finetune_settings: Any) -> GenerateSettings:
    values = {"epochs": 2, "block_tokens": 64, "batch_size": 2, "save_every": 3, **finetune_settings}
    return GenerateSettings.model_validate({"finetune": values, "full": full})


def train(folder: Path, base: Path, settings: GenerateSettings, progress: Any = None) -> Finetuned:
    device = open_device("fp32", 1)
    model = load_language_model(base, name="tiny")
    return finetune(model, ROWS, settings, folder, device=device, progress=progress or Silent())


# ------------------------------------------------------------------------------------------------------------ blocks


def test_rows_go_into_the_first_block_with_room() -> None:
    rows = [[1] * 5, [2] * 4, [3] * 3, [4] * 12, [5] * 2]
    blocks = pack_rows(rows, block_tokens=8, fill_id=0)
    assert blocks.input_ids.tolist() == [
        [1, 1, 1, 1, 1, 3, 3, 3],
        [2, 2, 2, 2, 5, 5, 0, 0],
        [4, 4, 4, 4, 4, 4, 4, 4],
    ]
    assert blocks.segments[1].tolist() == [1, 1, 1, 1, 2, 2, 0, 0]
    assert blocks.positions[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert blocks.num_cut == 1


def test_targets_are_the_next_tokens_of_the_same_row() -> None:
    ids, segments = torch.tensor([[7, 8, 9, 5, 6, 0]]), torch.tensor([[1, 1, 1, 2, 2, 0]])
    assert make_targets(ids, segments).tolist() == [[8, 9, -100, 6, -100, -100]]


def test_a_packed_row_has_the_logits_that_it_has_alone(tiny_gpt2: Path) -> None:
    model = load_language_model(tiny_gpt2, name="tiny")
    rows = [[0, *model.encode(text)] for text in ("Rain stops play", "A bank fell", "Goal")]
    blocks = pack_rows(rows, block_tokens=48, fill_id=0)
    assert len(blocks) == 1
    with torch.inference_mode():
        packed = model.model(
            input_ids=torch.from_numpy(blocks.input_ids),
            position_ids=torch.from_numpy(blocks.positions),
            attention_mask=make_block_mask(torch.from_numpy(blocks.segments)),
        ).logits[0]
        for number, row in enumerate(rows, start=1):
            alone = model.model(input_ids=torch.tensor([row])).logits[0]
            torch.testing.assert_close(packed[blocks.segments[0] == number], alone, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- loading


def test_an_encoder_is_no_language_model(tiny_bert: Path, tiny_roberta: Path) -> None:
    for folder in (tiny_bert, tiny_roberta):
        with pytest.raises(ModelError) as error:
            load_language_model(folder, name=str(folder))
        assert error.value.hint


def test_a_model_that_mixes_rows_is_refused(tiny_gpt2: Path) -> None:
    model = load_language_model(tiny_gpt2, name="tiny")
    forward = model.model.forward

    def forget_mask(input_ids: Any = None, position_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        return forward(
            input_ids=input_ids, position_ids=position_ids, attention_mask=torch.ones_like(input_ids), **options
        )

    model.model.forward = forget_mask
    with pytest.raises(ModelError, match="does not keep the rows of a batch separate"):
        check_rows_apart(model)
    model.model.forward = lambda input_ids=None, attention_mask=None, **_: forward(input_ids)
    with pytest.raises(ModelError, match="takes no positions"):
        check_rows_apart(model)


def test_a_missing_model_names_the_ways_out() -> None:
    with pytest.raises(ModelError, match="found no weights of 'gpt2'") as error:
        find_language_model("gpt2", None)
    assert all(way in error.value.hint for way in ("--model FOLDER", "HF_HUB_OFFLINE", "--from-scratch"))


def test_code_of_a_repository_is_never_run(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(tiny_gpt2, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "their-own", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="'their-own' cannot be loaded"):
        load_language_model(folder, name="remote")


def test_pickled_weights_are_never_loaded(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_gpt2, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelError, match=r"only the pickled pytorch_model\.bin"):
        find_language_model(str(folder), None)


def test_a_model_from_scratch_knows_the_words_of_its_rows(tmp_path: Path) -> None:
    build_scratch_model(ROWS, tmp_path / "one", seed=1)
    build_scratch_model(ROWS, tmp_path / "two", seed=1)
    assert digest_language_model(tmp_path / "one") == digest_language_model(tmp_path / "two")
    model = load_language_model(tmp_path / "one", name="scratch")
    ids = model.encode("The council of Tarvik met on Friday. Zürich 漢")
    assert model.decode(ids) == "The council of Tarvik met on Friday. Zürich 漢"
    assert len(model.encode(ROWS[0])) < len(ROWS[0]) / 3
    with pytest.raises(RunError, match="has no weights"):
        digest_language_model(tmp_path / "none")


# ---------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("full", [False, True])
def test_training_lowers_the_loss_of_rows_that_it_does_not_see(tiny_gpt2: Path, tmp_path: Path, full: bool) -> None:
    settings = make_settings(full=full, epochs=6, held_out=0.4, learning_rate=1e-2)
    figures = train(tmp_path, tiny_gpt2, settings)
    assert (figures.num_rows, figures.num_held_out) == (32, 22)
    assert figures.held_out_loss_before is not None
    assert figures.held_out_loss is not None
    assert figures.held_out_loss < 0.7 * figures.held_out_loss_before
    whole = sum(p.numel() for p in load_language_model(tiny_gpt2, name="tiny").model.parameters())
    assert (figures.trained_params == whole) == full
    assert not (tmp_path / "checkpoints").exists()
    # The saved model is the trained one, without the adapter.
    saved = load_language_model(tmp_path / "model", name="saved")
    assert not [name for name, _ in saved.model.named_parameters() if "lora" in name]
    assert digest_language_model(tmp_path / "model") != digest_language_model(tiny_gpt2)


class Killed(Exception):
    pass


class KillAt(Silent):
    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, done: int, **figures: float) -> None:
        if done == self.step:
            raise Killed


@pytest.mark.parametrize("full", [False, True])
def test_training_that_was_killed_ends_in_the_same_bytes(tiny_gpt2: Path, tmp_path: Path, full: bool) -> None:
    settings = make_settings(full=full, dropout=0.2)
    train(tmp_path / "whole", tiny_gpt2, settings)
    with pytest.raises(Killed):
        train(tmp_path / "killed", tiny_gpt2, settings, KillAt(5))
    assert (tmp_path / "killed/checkpoints/last").read_text() == "step-3\n"
    assert not (tmp_path / "killed/model").exists()
    train(tmp_path / "killed", tiny_gpt2, settings)
    files = [folder / "model" / "model.safetensors" for folder in (tmp_path / "whole", tmp_path / "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_another_seed_ends_in_other_bytes(tiny_gpt2: Path, tmp_path: Path) -> None:
    settings = make_settings(max_steps=2)
    for seed in (0, 1):
        train(tmp_path / str(seed), tiny_gpt2, settings.model_copy(update={"seed": seed}))
    assert digest_language_model(tmp_path / "0/model") != digest_language_model(tmp_path / "1/model")


def test_no_rows_and_a_loss_that_is_not_finite_end_in_errors(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_language_model(tiny_gpt2, name="tiny")
    device = open_device("fp32", 1)
    with pytest.raises(DataError, match="no row is left"):
        finetune(model, [], make_settings(), tmp_path, device=device, progress=Silent())
    with torch.no_grad():
        model.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(RunError, match="the loss of step 1 is nan"):
        finetune(model, ROWS, make_settings(held_out=0), tmp_path, device=device, progress=Silent())


def test_every_block_is_read_once_an_epoch(tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    compute = finetuning._Finetuning._compute_loss

    def watch(self: Any, blocks: Any, chosen: Any) -> Any:
        seen.extend(chosen.tolist())
        return compute(self, blocks, chosen)

    monkeypatch.setattr(finetuning._Finetuning, "_compute_loss", watch)
    train(tmp_path, tiny_gpt2, make_settings(epochs=2, held_out=0))
    half = len(seen) // 2
    assert sorted(seen[:half]) == sorted(seen[half:]) == list(range(half))
    assert seen[:half] != seen[half:]
