"""The classifier: a frozen encoder with an adapter and a head, run on packed batches.

Shape letters: B records, N tokens of a packed batch, T longest record, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import nn

from submillion.batches import Batch
from submillion.budget.families import get_family, read_family
from submillion.budget.plan import Plan
from submillion.config import ModelConfig
from submillion.errors import BudgetError, ConfigError, ModelError
from submillion.model import packed
from submillion.model.adapter import (
    ADAPTER,
    check_realised,
    initialise_head,
    inject_adapter,
    load_adapter_weights,
    mark_trainable,
    read_safetensors,
    save_adapter,
)
from submillion.model.biased_attention import replace_attention
from submillion.model.dropout import DropoutState, replace_dropout, set_probabilities
from submillion.model.families import explain_stock, first_position, read_sizes
from submillion.model.fused_encoder import FusedEncoder
from submillion.model.heads import NATIVE_HEADS, LinearHead
from submillion.model.pooling import pool_first, pool_mean
from submillion.model.prefix import PrefixStore
from submillion.model.recompute import recompute_layers
from submillion.model.sources import BaseModel
from submillion.model.stock import Task, load_stock_model, read_stock_config
from submillion.rundir import RunDir, write_bytes

# What a run's manifest says of an encoder that runs on our own code; the stock modules come with their reason.
KERNELS = "the CPU kernels"


class Classifier(nn.Module):
    """A frozen encoder, its adapter and its head.

    Args:
        wrapped: The stock model inside PEFT's wrapper: with its own head for native heads, the bare encoder else.
        plan: What was injected.
        head: The linear head, or None for a native one.
        pooling: State that a linear head reads.
        dropout_state: Keys shared by all dropout sites.
        dtype: Of frozen weights and activations.
    """

    def __init__(
        self,
        wrapped: Any,
        plan: Plan,
        head: LinearHead | None,
        pooling: str,
        dropout_state: DropoutState,
        *,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.head = head
        self.plan = plan
        self.pooling = pooling
        self._dtype = dtype
        self.dropout_state = dropout_state
        self._family = get_family(plan.family)
        self.is_packed = self._family.is_packed
        self._fused: FusedEncoder | None = None
        self._recomputes = False
        # Set by `prefix.reuse_prefix` for the length of a training.
        self.prefix: PrefixStore | None = None

    @property
    def stock_model(self) -> Any:
        """The stock transformers model inside PEFT's wrapper."""
        return self.wrapped.base_model.model

    @property
    def encoder(self) -> Any:
        """The stock encoder: input ids to states."""
        stock = self.stock_model
        return stock if self.head is not None else getattr(stock, stock.base_model_prefix)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @cached_property
    def stock_reason(self) -> str:
        """Why the stock modules run on a CPU, as the end of a sentence; empty where the kernels do."""
        return explain_stock(self.encoder.config, variant=self.plan.variant, dtype=self._dtype)

    def describe_modules(self) -> str:
        """Return what computes the encoder: `KERNELS`, or the stock modules and why."""
        if self.device.type != "cpu":
            return "the stock modules"
        return f"the stock modules: {self.stock_reason}" if self.stock_reason else KERNELS

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, float32 (B, C), in packed order.

        In training mode, `dropout_state.set_step` must have been called for this batch.

        Raises:
            ModelError: A token id beyond the embeddings; on a GPU, reading there would end the process.
        """
        num_embeddings = len(self.encoder.get_input_embeddings().weight)
        if batch.largest_id >= num_embeddings:
            raise ModelError(
                f"token ids reach {batch.largest_id:,}, the base model has embeddings for {num_embeddings:,} tokens",
                where="tokenizer.json",
                hint="The tokenizer belongs to another model; get it and the weights from one save.",
            )
        hidden = self._encode_packed(batch) if self.is_packed else self._encode_padded(batch)
        if self.head is not None:
            pool = pool_mean if self.pooling == "mean" else pool_first
            logits: torch.Tensor = self.head(pool(hidden, batch.offsets))
            return logits
        return NATIVE_HEADS[self._family.head](self.stock_model, hidden, batch.offsets)

    def _find_fused(self) -> FusedEncoder:
        # Made on first use: weights are where they will stay, and what trains is marked.
        if self._fused is None:
            self._fused = FusedEncoder(self.encoder, ADAPTER)
        return self._fused

    def count_frozen_layers(self) -> int:
        """Return how many first layers neither train nor drop anything; 0 where the stock modules run."""
        if self.stock_reason or self.device.type != "cpu":
            return 0
        return self._find_fused().count_frozen()

    def recompute_layers(self) -> None:
        """Keep only the input of every layer for the backward pass, which computes the rest of it once more."""
        self._recomputes = True
        recompute_layers(self.encoder, self.dropout_state)

    @property
    def hidden_size(self) -> int:
        """H."""
        return read_sizes(self.stock_model.config)[0]

    def _encode_packed(self, batch: Batch) -> torch.Tensor:
        if self.stock_reason == "" and batch.input_ids.device.type == "cpu":
            prefix = self.prefix if self.training else None
            replayed = self.dropout_state if self._recomputes else None
            return self._find_fused()(batch, first_position(self.stock_model.config), prefix, replayed)
        layout = packed.PackedLayout.from_batch(batch, self.dropout_state)
        positions = batch.positions + first_position(self.stock_model.config)
        output = self.encoder(
            input_ids=batch.input_ids[None],
            position_ids=positions[None],
            packed_layout=layout,
        )
        return cast(torch.Tensor, output.last_hidden_state[0])

    def _encode_padded(self, batch: Batch) -> torch.Tensor:
        # The declared path of families whose attention cannot see record boundaries. States of padding are dropped
        # at once, so that heads and pooling have one form.
        lengths = batch.offsets.diff()
        longest = int(lengths.max())
        mask = torch.arange(longest, device=lengths.device)[None] < lengths[:, None]
        pad = self.stock_model.config.pad_token_id or 0
        input_ids = torch.full(mask.shape, pad, dtype=torch.int64, device=lengths.device)
        input_ids[mask] = batch.input_ids[: batch.num_tokens]
        keys = self.dropout_state.token_keys
        if self.training and keys is not None:
            padded_keys = torch.zeros(mask.shape, dtype=keys.dtype, device=keys.device)
            padded_keys[mask] = keys[: batch.num_tokens]
            self.dropout_state.token_keys = padded_keys
        output = self.encoder(input_ids=input_ids, attention_mask=mask.long())
        return cast(torch.Tensor, output.last_hidden_state[mask])

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name, in a stable order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def save(self, run: RunDir) -> None:
        """Write the adapter and, if it is not part of it, the head into a run folder, each file atomically."""
        save_adapter(self.wrapped, run.adapter)
        if self.head is not None:
            tensors = {
                "head.weight": self.head.linear.weight.detach().cpu().contiguous(),
                "head.bias": self.head.linear.bias.detach().cpu().contiguous(),
            }
            payload = save(tensors, metadata={"format": "pt"})
            write_bytes(run.head, payload)

    def load(self, adapter: Path, head: Path | None) -> None:
        """Load what `save` wrote.

        Args:
            adapter: The adapter's folder.
            head: The linear head's file; None for a native head.

        Raises:
            ModelError: A file is missing, damaged, or does not fit the plan.
        """
        load_adapter_weights(self.wrapped, adapter)
        if self.head is not None:
            assert head is not None
            tensors = read_safetensors(head)
            shapes = {key: tuple(value.shape) for key, value in tensors.items()}
            weight, bias = self.head.linear.weight, self.head.linear.bias
            if shapes != {"head.weight": tuple(weight.shape), "head.bias": tuple(bias.shape)}:
                raise ModelError(f"does not fit the plan: it holds {shapes}", where=str(head))
            with torch.no_grad():
                weight.copy_(tensors["head.weight"])
                bias.copy_(tensors["head.bias"])


def find_window(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a base model has positions for, or None where its positions are relative.

    Args:
        config: The base model's ``config.json``.

    Raises:
        ModelError: The configuration names no whole number of positions.
    """
    family = read_family(config)
    limit = config.get("max_position_embeddings")
    is_optional = family.positions == "optional" and config.get("position_biased_input") is False
    if limit is None or family.positions == "rotary" or is_optional:
        return None
    padding = config.get("pad_token_id", 1) if family.counts_from_padding else -1
    if type(limit) is not int or type(padding) is not int:
        raise ModelError(
            f"max_position_embeddings is {limit!r:.40} and pad_token_id {padding!r:.40}; both are whole numbers",
            where="config.json",
            hint="The base model's configuration is damaged; fetch it again.",
        )
    return limit - (padding + 1)


def check_length(config: Mapping[str, Any], max_length: int | str) -> None:
    """Refuse a length that a base model has no positions for; reading past them would fail on the first long text.

    Args:
        config: The base model's ``config.json``.
        max_length: Tokens kept of a text; a rule, which never gives more than there are positions, passes.

    Raises:
        ConfigError: More tokens than positions.
    """
    limit = find_window(config)
    if limit is not None and isinstance(max_length, int) and max_length > limit:
        raise ConfigError(
            f"{max_length} tokens are more than the {limit} positions of this {config.get('model_type')} model",
            where="model.max_length",
            hint=f"Set it to {limit} or less: --set model.max_length={limit}",
        )


def build_classifier(
    base: BaseModel,
    plan: Plan,
    model: ModelConfig,
    *,
    adapter_dropout: float,
    dtype: torch.dtype,
    seed: int,
) -> Classifier:
    """Load a base model and make it what the plan says.

    Args:
        base: Where the weights are.
        plan: The adapter and the head.
        model: Head, pooling and dropout settings.
        adapter_dropout: Probability on the adapters' input.
        dtype: Of frozen weights and activations; trained parameters and the head are float32.
        seed: Seed of all initial values.

    Raises:
        ModelError: Unsupported architecture, or weights that do not fit it.
        BudgetError: The realised parameters differ from the plan.
    """
    packed.register()
    stock = load_stock(base, plan, model)
    head = None
    if plan.head == "linear":
        head = LinearHead(stock.config.hidden_size, plan.num_labels, model.head_dropout)
        nn.init.zeros_(head.linear.bias)
        initialise_head(head, 0.02, seed)
    else:
        std = getattr(stock.config, "initializer_range", 0.02)
        # Whole modules of the encoder may train, too; they start from what the checkpoint holds.
        for root in {module.name.split(".", 1)[0] for module in plan.head_modules} - {stock.base_model_prefix}:
            initialise_head(getattr(stock, root), std, seed, prefix=root)
    wrapped = inject_adapter(stock, plan, dropout=adapter_dropout, seed=seed)
    mark_trainable(wrapped, plan)
    check_realised(wrapped, plan)
    state = DropoutState()
    encoder_root = None if head is not None else stock.base_model_prefix
    roots = frozenset(name for name, _ in stock.named_children() if head is None and name != encoder_root)
    replace_dropout(stock, state, head_roots=roots)
    if head is not None:
        replace_dropout(head, state, head_roots=frozenset({"dropout"}))
    lower_precision(stock, encoder_root, dtype)
    classifier = Classifier(wrapped, plan, head, model.pooling, state, dtype=dtype)
    total = sum(p.numel() for p in classifier.trainable_parameters().values())
    if total != plan.trainable_params or total >= plan.budget:
        raise BudgetError(f"{total:,} trainable parameters; planned {plan.trainable_params:,}", where=base.name)
    return classifier


def load_stock(base: BaseModel, plan: Plan, model: ModelConfig) -> Any:
    """Load a base model in float32, with its own head for native heads, else the bare encoder.

    Raises:
        ModelError: Files that cannot be read, or that lack more than the planned head.
    """
    family = get_family(plan.family)
    config = read_stock_config(base.folder)
    if plan.head == "native":
        config.num_labels = plan.num_labels
    set_probabilities(config, model)
    options: dict[str, Any] = {"add_pooling_layer": False} if plan.head == "linear" and family.pooler else {}
    attention = packed.IMPLEMENTATION if family.is_packed else "eager"
    task: Task = "classifier" if plan.head == "native" else "encoder"
    stock = load_stock_model(base.folder, task, config=config, attention=attention, **options)
    trained = {module.name for module in plan.head_modules}
    missing = [key for key in stock.missing if key.rpartition(".")[0] not in trained]
    if missing:
        raise ModelError(
            f"the checkpoint lacks {len(missing)} tensors that would stay at random values: {missing[:4]}",
            where=str(base.folder),
            hint="Only the planned head may be new. Use model.head=linear, or a complete checkpoint.",
        )
    if family.is_packed:
        replace_attention(stock.model if plan.head == "linear" else getattr(stock.model, stock.model.base_model_prefix))
    return stock.model


def lower_precision(stock: Any, encoder_root: str | None, dtype: torch.dtype) -> None:
    """Cast the encoder's frozen parameters; the head, all trained parameters and buffers keep float32."""
    encoder = stock if encoder_root is None else getattr(stock, encoder_root)
    pooler = getattr(encoder, "pooler", None)
    kept: set[int] = set()
    if pooler is not None:
        kept = {id(parameter) for parameter in pooler.parameters()}
        # The stock encoder calls its pooler by itself too, on low-precision states.
        pooler.register_forward_pre_hook(lambda _, inputs: tuple(states.float() for states in inputs))
    for parameter in encoder.parameters():
        if not parameter.requires_grad and id(parameter) not in kept:
            parameter.data = parameter.data.to(dtype)
    for name, module in encoder.named_modules():
        own = list(module.parameters(recurse=False))
        if ".modules_to_save." in name and any(p.requires_grad and id(p) not in kept for p in own):
            module.register_forward_pre_hook(lambda _, inputs: tuple(_raise_states(states) for states in inputs))
            module.register_forward_hook(lambda _, inputs, states: states.to(dtype))
    for module in list(encoder.modules()):
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter) and bias.requires_grad and bias.dtype != dtype:
            if type(module) is nn.Linear:
                module.__class__ = _LinearWithTrainedBias
            elif type(module) is nn.LayerNorm:
                module.__class__ = _LayerNormWithTrainedBias


def _raise_states(states: torch.Tensor) -> torch.Tensor:
    # What an embedding reads are ids.
    return states.float() if states.is_floating_point() else states


class _LinearWithTrainedBias(nn.Linear):
    """A frozen low-precision matrix with a float32 bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias.to(x.dtype))


class _LayerNormWithTrainedBias(nn.LayerNorm):
    """A frozen low-precision norm with a float32 bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias.to(x.dtype), self.eps)
