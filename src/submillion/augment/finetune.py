"""Adapt a language model to rows: packed blocks, AdamW, checkpoints that a kill cannot spoil.

Order and dropout are functions of (seed, step), so a run that was killed and continued ends in the same bytes as one
that was not, on the same machine with the same threads.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from submillion.augment.blocks import IGNORED, Blocks, make_block_mask, make_targets, pack_rows
from submillion.augment.generation_state import MODEL_PATH
from submillion.augment.language_model import LanguageModel, save_language_model
from submillion.config.generate import GenerateSettings
from submillion.config.run import TrainConfig
from submillion.errors import DataError, DivergedError
from submillion.model.adapter import inject_language_adapter, merge_language_adapter
from submillion.model.dropout import mix_64
from submillion.model.untyped import Stock
from submillion.progress import Progress
from submillion.storage.files import read_json, write_json
from submillion.training.checkpoint import (
    Position,
    delete_old_checkpoints,
    find_checkpoint,
    load_optimizer,
    load_parameters,
    read_position,
    save_checkpoint,
)
from submillion.training.device import Device
from submillion.training.interrupt import deferred_stop
from submillion.training.optim import build_optimizer, schedule_factor, set_learning_rates

MODEL_NAME, FIGURES_NAME, CHECKPOINTS_NAME = Path(MODEL_PATH).name, "finetune.json", "checkpoints"
_MIN_HELD_OUT_ROWS = 20


@dataclass(frozen=True)
class Finetuned:
    """The result of fine-tuning.

    Attributes:
        num_rows: Number of rows trained on.
        num_held_out: Number of rows that only measured the loss.
        num_cut: Number of rows longer than a block, which lost their end.
        num_tokens: Number of tokens of the rows trained on, start and end tokens included.
        num_steps: Number of optimizer steps.
        trained_params: Number of parameters that were trained.
        held_out_loss_before: Mean loss a token of the held-out rows before training, in nats; None without such rows.
        held_out_loss: The same after training.
        elapsed_s: Duration of training over all attempts, in seconds.
    """

    num_rows: int
    num_held_out: int
    num_cut: int
    num_tokens: int
    num_steps: int
    trained_params: int
    held_out_loss_before: float | None
    held_out_loss: float | None
    elapsed_s: float


def finetune(
    language_model: LanguageModel,
    rows: Sequence[str],
    settings: GenerateSettings,
    folder: Path,
    *,
    device: Device,
    progress: Progress,
) -> Finetuned:
    """Train a language model on rows and save it, merged, as ``model`` in the folder; continue after a kill.

    Args:
        language_model: Model to train, changed in place.
        rows: Texts to train on, each read separately.
        settings: Settings of the generation.
        folder: Folder for the model, and for the checkpoints until the end.
        device: Device and precision.
        progress: Receiver of steps.

    Raises:
        DataError: There are no rows.
        RunError: The loss is not finite, the disk is full, or a checkpoint is damaged.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the work so far has been saved.
    """
    if not rows:
        raise DataError("no row is left to train the language model on", hint="Give more rows, or other test files.")
    with torch.random.fork_rng():
        return _Finetuning(language_model, rows, settings, folder, device=device, progress=progress).run()


class _Finetuning:
    def __init__(
        self,
        language_model: LanguageModel,
        rows: Sequence[str],
        settings: GenerateSettings,
        folder: Path,
        *,
        device: Device,
        progress: Progress,
    ) -> None:
        self.language_model, self.settings, self.folder = language_model, settings, folder
        self.device, self.progress = device, progress
        ids = [[language_model.start_id, *language_model.encode(row), language_model.end_id] for row in rows]
        order = np.random.default_rng([settings.seed, 0]).permutation(len(ids)).tolist()
        num_held_out = round(settings.finetune.held_out * len(ids))
        num_held_out = num_held_out if num_held_out >= _MIN_HELD_OUT_ROWS else 0
        size = min(settings.finetune.block_tokens, language_model.max_tokens)
        fill = language_model.end_id
        self.held_out = pack_rows([ids[n] for n in order[:num_held_out]], block_tokens=size, fill_id=fill)
        self.blocks = pack_rows([ids[n] for n in order[num_held_out:]], block_tokens=size, fill_id=fill)
        self.num_held_out, self.num_rows = num_held_out, len(ids) - num_held_out
        self.num_tokens = int((self.blocks.segments > 0).sum())
        self.checkpoints = folder / CHECKPOINTS_NAME
        self.model = language_model.model.to(device.device)
        self.adapter = None
        if not (settings.full or settings.from_scratch):
            tuning = settings.finetune
            self.adapter = inject_language_adapter(
                self.model, rank=tuning.rank, alpha=tuning.alpha, dropout=tuning.dropout, seed=settings.seed
            )
            self.model.to(device.device)
        self.parameters: Mapping[str, nn.Parameter] = {
            name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad
        }

    def run(self) -> Finetuned:
        tuning = self.settings.finetune
        steps_per_epoch = math.ceil(len(self.blocks) / tuning.batch_size)
        num_steps = tuning.max_steps or max(1, math.ceil(tuning.epochs * steps_per_epoch))
        config = TrainConfig(learning_rate=self.settings.learning_rate, weight_decay=tuning.weight_decay)
        optimizer = build_optimizer(self.parameters, config)
        position = self._restore(optimizer)
        before = self._measure_before(position.step)
        self.progress.start("fine-tune", num_steps, position.step)
        begin = time.perf_counter() - position.elapsed_s
        with deferred_stop() as stop:
            for step in range(position.step, num_steps):
                loss = self._train_step(step, num_steps, steps_per_epoch, optimizer)
                self.progress.advance(step + 1, loss=loss)
                if stop.is_set or (step + 1) % tuning.save_every == 0 or step + 1 == num_steps:
                    position = replace(position, step=step + 1, elapsed_s=time.perf_counter() - begin)
                    save_checkpoint(self.checkpoints, position, self.parameters, optimizer, None)
                    delete_old_checkpoints(self.checkpoints, keep=1, last_step=step + 1, best_step=step + 1)
                if stop.is_set:
                    raise KeyboardInterrupt
        self.progress.finish()
        figures = Finetuned(
            num_rows=self.num_rows,
            num_held_out=self.num_held_out,
            num_cut=self.blocks.num_cut + self.held_out.num_cut,
            num_tokens=self.num_tokens,
            num_steps=num_steps,
            trained_params=sum(parameter.numel() for parameter in self.parameters.values()),
            held_out_loss_before=before,
            held_out_loss=self._measure(self.held_out),
            elapsed_s=position.elapsed_s,
        )
        self._save(figures)
        return figures

    def _restore(self, optimizer: torch.optim.Optimizer) -> Position:
        checkpoint = find_checkpoint(self.checkpoints, "last")
        if checkpoint is None:
            return Position()
        load_parameters(checkpoint, self.parameters)
        load_optimizer(checkpoint, self.parameters, optimizer)
        return read_position(checkpoint)

    def _measure_before(self, step: int) -> float | None:
        path = self.folder / "before.json"
        if step == 0:
            write_json(path, {"held_out_loss": self._measure(self.held_out)})
        value: float | None = read_json(path).get("held_out_loss")
        return value

    def _train_step(self, step: int, num_steps: int, steps_per_epoch: int, optimizer: torch.optim.Optimizer) -> float:
        tuning = self.settings.finetune
        # Dropout draws from torch's generator, so each step seeds it.
        torch.manual_seed(mix_64((self.settings.seed << 32) + step) >> 1)
        warmup = math.ceil(tuning.warmup_ratio * num_steps)
        set_learning_rates(
            optimizer, schedule_factor(step, num_steps=num_steps, warmup_steps=warmup, schedule="cosine")
        )
        epoch, place = divmod(step, steps_per_epoch)
        order = np.random.default_rng([self.settings.seed, 1, epoch]).permutation(len(self.blocks))
        self.model.train()
        optimizer.zero_grad(set_to_none=True)
        total, count = self._compute_loss(
            self.blocks, order[place * tuning.batch_size : (place + 1) * tuning.batch_size]
        )
        loss = total / count
        loss.backward()
        value = float(loss.detach())
        if tuning.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), tuning.clip_norm)
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss of step {step + 1} is {value}",
                where=str(self.folder),
                hint="Lower finetune.learning_rate, and start again with another --out.",
            )
        optimizer.step()
        return value

    def _compute_loss(self, blocks: Blocks, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, int]:
        """Return the summed loss of some blocks and the number of tokens that have one."""
        device = self.device.device
        # Positions at the end that are empty in all chosen blocks are cut off.
        width = max(1, int((blocks.segments[chosen] > 0).sum(axis=1).max()))
        input_ids, segments, positions = (
            torch.from_numpy(values[chosen, :width]).to(device)
            for values in (blocks.input_ids, blocks.segments, blocks.positions)
        )
        targets = make_targets(input_ids, segments)
        with torch.autocast(device.type, self.device.dtype, enabled=self.device.dtype != torch.float32):
            logits = self.model(
                input_ids=input_ids,
                position_ids=positions,
                attention_mask=make_block_mask(segments),
                use_cache=False,
            ).logits
        total = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total, int((targets != IGNORED).sum())

    def _measure(self, blocks: Blocks) -> float | None:
        """Return the mean loss a token, in nats; None without blocks."""
        if not len(blocks):
            return None
        self.model.eval()
        total, count = 0.0, 0
        with torch.inference_mode():
            for begin in range(0, len(blocks), self.settings.finetune.batch_size):
                chosen = np.arange(begin, min(len(blocks), begin + self.settings.finetune.batch_size))
                part, tokens = self._compute_loss(blocks, chosen)
                total, count = total + float(part), count + tokens
        return total / count

    def _save(self, figures: Finetuned) -> None:
        model: Stock = self.model if self.adapter is None else merge_language_adapter(self.adapter)
        save_language_model(replace(self.language_model, model=model.eval()), self.folder / MODEL_NAME)
        # This file comes last, since it shows that the model is complete.
        write_json(self.folder / FIGURES_NAME, figures.__dict__)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
