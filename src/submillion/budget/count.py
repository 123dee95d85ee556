"""Exact parameter counts of encoders, from their configuration alone.

An encoder is listed module by module under the names of `transformers` (`AutoModel`). A count is a sum over this list,
which can be compared with the real model name by name. Missing settings take the defaults of `transformers`'
configuration classes, as when the model is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from submillion.budget.families import Family, FusedLayerNames, LayerNames, read_family
from submillion.config.run import KINDS
from submillion.errors import ModelError

ENCODER_KINDS: tuple[str, ...] = (*KINDS, "qkv")
"""Kinds that `all` stands for; `qkv` is the fused matrix of families without separate query, key and value."""


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer inside a transformer layer: a possible target of an adapter.

    Attributes:
        name: Module name inside the encoder, such as ``encoder.layer.0.attention.self.query``.
        kind: One of `ENCODER_KINDS`, or a further projection of the family (``pos_key``, ``pos_query``).
        layer: Layer number from 0; where layers share weights, the number of the shared one.
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether it has a bias.
    """

    name: str
    kind: str
    layer: int
    in_features: int
    out_features: int
    bias: bool


@dataclass(frozen=True, slots=True)
class Module:
    """One encoder module that has its own parameters.

    Attributes:
        name: Module name inside the encoder.
        weight: Number of weights.
        bias: Number of biases; 0 without one.
        linear: The linear layer that an adapter may target, or None.
    """

    name: str
    weight: int
    bias: int
    linear: Linear | None = None


class _Facts:
    """Checked reading of a configuration mapping."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = config

    def find_name(self, names: Sequence[str]) -> str:
        """Return the first name of a setting that the configuration has, otherwise the last name."""
        return next((name for name in names if name in self._config), names[-1])

    def get_size(self, name: str, default: int, *, least: int = 1) -> int:
        value = self._config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelError(
                f"{name} is {value!r}, expected an integer of at least {least}",
                where="config.json",
                hint="The model's configuration is damaged or of another kind; fetch it again.",
            )
        return value

    def get_flag(self, name: str, default: bool) -> bool:
        value = self._config.get(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"{name} is {value!r}, expected true or false", where="config.json")
        return value

    def get_list(self, name: str, default: str) -> list[str]:
        value = self._config.get(name)
        parts = value if isinstance(value, list) else str(default if value is None else value).split("|")
        return [str(part).strip().lower() for part in parts]


def read_num_layers(config: Mapping[str, object]) -> int:
    """Return the number of layers with their own weights (ALBERT's layers share theirs)."""
    family = read_family(config)
    facts = _Facts(config)
    if family.shared_layers:
        return facts.get_size("num_hidden_groups", 1) * facts.get_size("inner_group_num", 1)
    return facts.get_size(facts.find_name(family.sizes.layers), family.defaults.layers)


def read_hidden_size(config: Mapping[str, object]) -> int:
    """Return the width of the encoder's output."""
    family = read_family(config)
    facts = _Facts(config)
    return facts.get_size(facts.find_name(family.sizes.hidden), family.defaults.hidden)


def list_modules(config: Mapping[str, object], *, pooler: bool = False) -> list[Module]:
    """List every encoder module that holds parameters, in no particular order.

    Args:
        config: The model's ``config.json``.
        pooler: Whether the encoder is built with its pooler, if the family has one.

    Raises:
        ModelError: The family is not supported, or the configuration is damaged.
    """
    family = read_family(config)
    if isinstance(family.layers, LayerNames):
        modules = list(_list_encoder(family, family.layers, config))
    else:
        modules = list(_list_fused_encoder(family, family.layers, config))
    if pooler and family.pooler:
        hidden = read_hidden_size(config)
        modules.append(Module(family.pooler, hidden * hidden, hidden))
    return modules


def list_linears(config: Mapping[str, object]) -> list[Linear]:
    """List the linear layers inside the transformer layers, layer by layer.

    Raises:
        ModelError: The family is not supported, or the configuration is damaged.
    """
    return [module.linear for module in list_modules(config) if module.linear]


def count_encoder(config: Mapping[str, object], *, pooler: bool = False) -> int:
    """Count all parameters of an encoder without a head.

    Args:
        config: The model's ``config.json``.
        pooler: Whether the encoder is built with its pooler, if the family has one.
    """
    return sum(module.weight + module.bias for module in list_modules(config, pooler=pooler))


def count_biases(config: Mapping[str, object], *, pooler: bool = False) -> int:
    """Count all encoder biases, including those of normalisation layers.

    PEFT trains these with ``bias="all"``: parameters whose last name is ``bias``
    (`BaseTuner._mark_only_adapters_as_trainable`). MPNet's table ``relative_attention_bias`` is not one of them.
    """
    return sum(module.bias for module in list_modules(config, pooler=pooler))


def _make_linear(name: str, kind: str, layer: int, shape: tuple[int, int], bias: bool = True) -> Module:
    in_features, out_features = shape
    linear = Linear(name, kind, layer, in_features, out_features, bias)
    return Module(name, in_features * out_features, out_features if bias else 0, linear)


def _make_norm(name: str, size: int, bias: bool = True) -> Module:
    return Module(name, size, size if bias else 0)


def _list_encoder(family: Family, names: LayerNames, config: Mapping[str, object]) -> Iterator[Module]:
    facts = _Facts(config)
    hidden = read_hidden_size(config)
    ffn = facts.get_size(facts.find_name(family.sizes.intermediate), family.defaults.intermediate)
    heads = facts.get_size(facts.find_name(family.sizes.heads), family.defaults.heads)
    if hidden % heads:
        raise ModelError(f"hidden size {hidden} is not a multiple of {heads} attention heads", where="config.json")
    positions = facts.get_size("max_position_embeddings", 512)
    yield from _list_embeddings(family, facts, hidden, positions)
    inner = hidden
    extras: tuple[tuple[str, str], ...] = ()
    if family.is_disentangled:
        inner = heads * facts.get_size("attention_head_size", hidden // heads)
        yield from _list_disentangled(facts, hidden, positions)
        extras = _list_position_kinds(facts)
    if family.position_bias:
        num_buckets = facts.get_size("relative_attention_num_buckets", family.position_bias.num_buckets)
        yield Module(family.position_bias.table, num_buckets * heads, 0)
    for layer in range(read_num_layers(config)):
        prefix = f"{names.stack}.{layer}"
        if family.shared_layers:
            group, place = divmod(layer, facts.get_size("inner_group_num", 1))
            prefix = f"{names.stack}.{group}.{family.shared_layers}.{place}"
        for kind, name in (("query", names.query), ("key", names.key), ("value", names.value), *extras):
            yield _make_linear(f"{prefix}.{name}", kind, layer, (hidden, inner))
        yield _make_linear(f"{prefix}.{names.attention_output}", "attention_output", layer, (hidden, hidden))
        yield _make_linear(f"{prefix}.{names.ffn_in}", "ffn_in", layer, (hidden, ffn))
        yield _make_linear(f"{prefix}.{names.ffn_out}", "ffn_out", layer, (ffn, hidden))
        for norm in (names.attention_norm, names.ffn_norm):
            yield _make_norm(f"{prefix}.{norm}", hidden)


def _list_embeddings(family: Family, facts: _Facts, hidden: int, positions: int) -> Iterator[Module]:
    projection, width = family.projection, hidden
    if projection:
        width = facts.get_size("embedding_size", projection.width or hidden)
    words = facts.get_size("vocab_size", family.defaults.vocabulary)
    yield Module("embeddings.word_embeddings", words * width, 0)
    if family.positions == "table" or facts.get_flag("position_biased_input", True):
        yield Module("embeddings.position_embeddings", positions * width, 0)
    if family.defaults.types is not None:
        num_types = facts.get_size("type_vocab_size", family.defaults.types, least=0)
        if num_types or family.defaults.types:
            yield Module("embeddings.token_type_embeddings", num_types * width, 0)
    is_late = projection is not None and projection.is_before_norm
    yield _make_norm("embeddings.LayerNorm", hidden if is_late else width)
    if projection and (projection.is_always_there or width != hidden):
        yield Module(projection.name, width * hidden, hidden if projection.bias else 0)


def _list_position_kinds(facts: _Facts) -> tuple[tuple[str, str], ...]:
    # Versions 2 and 3 of DeBERTa usually share these two projections with key and query (share_att_key).
    if not facts.get_flag("relative_attention", False) or facts.get_flag("share_att_key", False):
        return ()
    attention = facts.get_list("pos_att_type", "")
    named = {"pos_key": ("c2p", "attention.self.pos_key_proj"), "pos_query": ("p2c", "attention.self.pos_query_proj")}
    return tuple((kind, name) for kind, (mode, name) in named.items() if mode in attention)


def _list_disentangled(facts: _Facts, hidden: int, positions: int) -> Iterator[Module]:
    if facts.get_flag("relative_attention", False):
        # -1 means "as many as positions", and buckets override both.
        span = facts.get_size("max_relative_positions", -1, least=-1)
        buckets = facts.get_size("position_buckets", -1, least=-1)
        size = buckets if buckets > 0 else span if span > 0 else positions
        yield Module("encoder.rel_embeddings", 2 * size * hidden, 0)
    if "layer_norm" in facts.get_list("norm_rel_ebd", "none"):
        yield _make_norm("encoder.LayerNorm", hidden)
    kernel = facts.get_size("conv_kernel_size", 0, least=0)
    if kernel:
        groups = facts.get_size("conv_groups", 1)
        yield Module("encoder.conv.conv", hidden * (hidden // groups) * kernel, hidden)
        yield _make_norm("encoder.conv.LayerNorm", hidden)


def _list_fused_encoder(family: Family, names: FusedLayerNames, config: Mapping[str, object]) -> Iterator[Module]:
    facts = _Facts(config)
    hidden = read_hidden_size(config)
    ffn = facts.get_size(facts.find_name(family.sizes.intermediate), family.defaults.intermediate)
    norm_bias = facts.get_flag("norm_bias", False)
    attention_bias = facts.get_flag("attention_bias", False)
    mlp_bias = facts.get_flag("mlp_bias", False)
    yield Module(names.words, facts.get_size("vocab_size", family.defaults.vocabulary) * hidden, 0)
    yield _make_norm(names.words_norm, hidden, norm_bias)
    for layer in range(read_num_layers(config)):
        prefix = f"{names.stack}.{layer}"
        if layer > 0:  # The first layer takes the normalised embeddings directly.
            yield _make_norm(f"{prefix}.{names.attention_norm}", hidden, norm_bias)
        yield _make_linear(f"{prefix}.{names.qkv}", "qkv", layer, (hidden, 3 * hidden), attention_bias)
        output = f"{prefix}.{names.attention_output}"
        yield _make_linear(output, "attention_output", layer, (hidden, hidden), attention_bias)
        yield _make_norm(f"{prefix}.{names.ffn_norm}", hidden, norm_bias)
        yield _make_linear(f"{prefix}.{names.ffn_in}", "ffn_in", layer, (hidden, 2 * ffn), mlp_bias)
        yield _make_linear(f"{prefix}.{names.ffn_out}", "ffn_out", layer, (ffn, hidden), mlp_bias)
    yield _make_norm(names.last_norm, hidden, norm_bias)
