"""Encoders of the BERT kind on the CPU kernels: embeddings and layers taken from a stock model.

The stock model keeps the parameters and this module reads them there, so each trained tensor exists once. Other
architectures, other activations and adapters with their own forward pass keep the stock modules.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from submillion.budget.families import KernelFacts, LayerNames, get_family
from submillion.encoding.batches import Batch
from submillion.kernels import calls
from submillion.kernels.attention import DistanceTable
from submillion.model.config_facts import read_sizes
from submillion.model.distance_bias import read_distance_bias
from submillion.model.dropout import DropoutState, KeyedDropout
from submillion.model.fused_layer import AttentionSite, FusedLayer, FusedNorm
from submillion.model.fused_linear import Adapter, FusedLinear, make_mask
from submillion.model.prefix import PrefixStore
from submillion.model.untyped import Stock


class FusedEncoder:
    """The forward pass of an encoder on the kernels.

    Args:
        encoder: The stock encoder on the CPU, with frozen weights in bfloat16.
        adapter: Name of the adapter inside PEFT's layers.
    """

    def __init__(self, encoder: Stock, adapter: str) -> None:
        config = encoder.config
        self._embeddings = encoder.embeddings
        self._projection: nn.Linear | None = getattr(encoder, "embeddings_project", None)
        family = get_family(config.model_type)
        names, facts = family.layers, family.kernels
        assert isinstance(names, LayerNames)
        assert facts is not None
        bias = None
        if family.position_bias is not None:
            weight = encoder.get_submodule(family.position_bias.table).weight
            num_positions = len(self._embeddings.position_embeddings.weight)
            bias = read_distance_bias(config, weight, num_positions=num_positions).table
        reader = _LayerReader(names, facts, adapter, num_heads=read_sizes(config)[2], bias=bias)
        self._stock_layers = list(encoder.get_submodule(names.stack))
        self.layers = [reader.read(layer) for layer in self._stock_layers]
        self._places = _join_places(self._embeddings)
        norm = self._embeddings.LayerNorm
        self._norm = FusedNorm(norm.weight, norm.bias, norm.eps)

    def __call__(
        self,
        batch: Batch,
        first_position: int,
        prefix: PrefixStore | None = None,
        replayed: DropoutState | None = None,
    ) -> torch.Tensor:
        """Return the last states, (N, H) bfloat16, without filler.

        Args:
            batch: A packed batch on the CPU.
            first_position: Position id of a record's first token.
            prefix: Store of the states that enter the first layer that trains.
            replayed: State of the dropout, given if the backward pass computes each layer again (`FusedLayer`).
        """
        first_layer = 0 if prefix is None else prefix.num_layers
        hidden = None if prefix is None else prefix.read(batch)
        longest = batch.groups[-1].length
        if hidden is None:
            hidden = self.embed(batch, first_position)
            for layer in self.layers[:first_layer]:
                hidden = layer(hidden, batch.offsets, longest)
            if prefix is not None:
                prefix.write(batch, hidden)
        for layer in self.layers[first_layer:]:
            hidden = layer(hidden, batch.offsets, longest, replayed)
        return hidden

    def count_frozen(self) -> int:
        """Return how many of the first layers neither train nor drop anything; 0 if the embeddings train or drop."""
        if any(_may_drop(module) or _trains(module) for module in self._embeddings.modules()):
            return 0
        count = 0
        for layer, module in zip(self.layers, self._stock_layers, strict=True):
            if layer.list_trained() or any(_may_drop(part) for part in module.modules()):
                break
            count += 1
        return count

    def embed(self, batch: Batch, first_position: int) -> torch.Tensor:
        """Return the states that enter the first layer, (N, H) bfloat16."""
        num_tokens = batch.num_tokens
        ids = batch.input_ids[:num_tokens]
        positions = batch.positions[:num_tokens] + first_position
        words = self._embeddings.word_embeddings.weight
        norm = self._norm
        if norm.bias.requires_grad or words.shape[1] % 32 or self._projection is not None:
            return self._embed_stock(batch, first_position)
        mask = make_mask(_as_keyed(self._embeddings.dropout), words.shape[1])
        return calls.embed(ids, positions, words=words.detach(), places=self._places, norm=norm.read(), mask=mask)

    def _embed_stock(self, batch: Batch, first_position: int) -> torch.Tensor:
        # The filler is included, since dropout masks are made for all rows.
        hidden: torch.Tensor = self._embeddings(
            input_ids=batch.input_ids[None], position_ids=(batch.positions + first_position)[None]
        )
        if self._projection is not None:
            hidden = self._projection(hidden)
        return hidden[0, : batch.num_tokens].contiguous()


def _join_places(embeddings: Stock) -> torch.Tensor:
    # Every token is of type 0, so position and type are one table. It is float32, as their sum is.
    places = embeddings.position_embeddings.weight.detach().float()
    types = getattr(embeddings, "token_type_embeddings", None)
    table: torch.Tensor = places if types is None else places + types.weight.detach().float()[0]
    return table.contiguous()


def _may_drop(module: nn.Module) -> bool:
    return isinstance(module, KeyedDropout) and module.p > 0.0


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _as_keyed(module: Stock) -> KeyedDropout | None:
    return module if isinstance(module, KeyedDropout) else None


@dataclass(frozen=True)
class _LayerReader:
    names: LayerNames
    facts: KernelFacts
    adapter: str
    num_heads: int
    bias: DistanceTable | None

    def read(self, layer: nn.Module) -> FusedLayer:
        names = self.names
        attention = layer.get_submodule(self.facts.attention)
        dropout = _as_keyed(getattr(attention, "dropout", None))
        return FusedLayer(
            qkv=self._join([layer.get_submodule(name) for name in (names.query, names.key, names.value)]),
            attention_output=self._join([layer.get_submodule(names.attention_output)]),
            ffn_in=self._join([layer.get_submodule(names.ffn_in)]),
            ffn_out=self._join([layer.get_submodule(names.ffn_out)]),
            attention_norm=_read_norm(layer.get_submodule(names.attention_norm)),
            ffn_norm=_read_norm(layer.get_submodule(names.ffn_norm)),
            num_heads=self.num_heads,
            attention_site=AttentionSite(dropout, 0 if dropout is None else dropout.site),
            attention_output_dropout=self._find_dropout(layer, self.facts.attention_output_dropout),
            ffn_output_dropout=self._find_dropout(layer, self.facts.ffn_output_dropout),
            bias=self.bias,
        )

    @staticmethod
    def _find_dropout(layer: nn.Module, name: str | None) -> KeyedDropout | None:
        return None if name is None else _as_keyed(layer.get_submodule(name))

    def _join(self, linears: list[nn.Module]) -> FusedLinear:
        weights, biases, adapters, column = [], [], [], 0
        for linear in linears:
            frozen: Stock = getattr(linear, "base_layer", linear)
            weights.append(frozen.weight.detach())
            biases.append(frozen.bias)
            if frozen is not linear:
                adapters.append(self._read_adapter(linear, column))
            column += frozen.weight.shape[0]
        return FusedLinear(torch.cat(weights), biases, adapters)

    def _read_adapter(self, linear: Stock, column: int) -> Adapter:
        return Adapter(
            first_column=column,
            a=linear.lora_A[self.adapter].weight,
            b=linear.lora_B[self.adapter].weight,
            scaling=float(linear.scaling[self.adapter]),
            dropout=_as_keyed(linear.lora_dropout[self.adapter]),
        )


def _read_norm(norm: Stock) -> FusedNorm:
    return FusedNorm(norm.weight, norm.bias, norm.eps)
