"""Exact parameter counts of encoders, from their configuration alone.

An encoder is listed module by module under the names that `transformers` gives them (those of `AutoModel`), so a
count here is a sum over a list that can be compared with the real model, name by name. Missing settings take the
defaults of `transformers`' configuration classes, as they would when the model is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from submillion.config import KINDS
from submillion.errors import ModelError

ENCODER_KINDS: tuple[str, ...] = (*KINDS, "qkv")
"""Kinds that `all` stands for; `qkv` is the fused matrix of families that have no query, key and value apart."""


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
    """One encoder module that holds parameters of its own.

    Attributes:
        name: Module name inside the encoder.
        weight: Number of weights.
        bias: Number of biases; 0 without one.
        linear: What an adapter may target, or None.
    """

    name: str
    weight: int
    bias: int
    linear: Linear | None = None


class _Facts:
    """Checked reading of a configuration mapping."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.family = str(config.get("model_type"))

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


@dataclass(frozen=True, slots=True)
class _Layout:
    """Names of the parts of one transformer layer, relative to the layer."""

    stack: str
    query: str
    key: str
    value: str
    attention_output: str
    ffn_in: str
    ffn_out: str
    norms: tuple[str, str]


_BERT_FFN = {"ffn_in": "intermediate.dense", "ffn_out": "output.dense"}
_BERT = _Layout(
    stack="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    **_BERT_FFN,
)
_LAYOUTS: dict[str, _Layout] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "deberta-v2": _Layout(
        stack="encoder.layer",
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        attention_output="attention.output.dense",
        norms=("attention.output.LayerNorm", "output.LayerNorm"),
        **_BERT_FFN,
    ),
    "mpnet": _Layout(
        stack="encoder.layer",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        norms=("attention.LayerNorm", "output.LayerNorm"),
        **_BERT_FFN,
    ),
    "distilbert": _Layout(
        stack="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        norms=("sa_layer_norm", "output_layer_norm"),
    ),
    "albert": _Layout(
        stack="encoder.albert_layer_groups",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.dense",
        ffn_in="ffn",
        ffn_out="ffn_output",
        norms=("attention.LayerNorm", "full_layer_layer_norm"),
    ),
}

# Configuration defaults of transformers' classes that differ between families, as (hidden, intermediate, layers,
# heads, vocabulary, token types).
_DEFAULTS: dict[str, tuple[int, int, int, int, int, int]] = {
    "bert": (768, 3072, 12, 12, 30522, 2),
    "roberta": (768, 3072, 12, 12, 50265, 2),
    "xlm-roberta": (768, 3072, 12, 12, 30522, 2),
    "camembert": (768, 3072, 12, 12, 30522, 2),
    "electra": (256, 1024, 12, 4, 30522, 2),
    "deberta-v2": (1536, 6144, 24, 24, 128100, 0),
    "mpnet": (768, 3072, 12, 12, 30527, 0),
    "distilbert": (768, 3072, 6, 12, 30522, 0),
    "albert": (4096, 16384, 12, 64, 30000, 2),
    "modernbert": (768, 1152, 22, 12, 50368, 0),
}
FAMILIES: tuple[str, ...] = tuple(sorted(_DEFAULTS))
"""Values of ``model_type`` that can be counted."""

_POOLERS = {"bert": "pooler.dense", "roberta": "pooler.dense", "xlm-roberta": "pooler.dense"}
_POOLERS |= {"camembert": "pooler.dense", "mpnet": "pooler.dense", "albert": "pooler"}


def read_family(config: Mapping[str, Any]) -> str:
    """Return the model family, the configuration's ``model_type``.

    Raises:
        ModelError: A family that cannot be counted, with those that can.
    """
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise ModelError(
            f"models of type {family!r} are not supported", hint=f"Supported encoder types: {', '.join(FAMILIES)}."
        )
    if config.get("add_cross_attention"):
        raise ModelError(f"this {family} has cross-attention", hint="Use an encoder: add_cross_attention false.")
    return family


def read_num_layers(config: Mapping[str, Any]) -> int:
    """Return the number of layers with weights of their own (ALBERT's layers share theirs)."""
    family = read_family(config)
    facts = _Facts(config)
    if family == "albert":
        return facts.get_size("num_hidden_groups", 1) * facts.get_size("inner_group_num", 1)
    name = "n_layers" if family == "distilbert" and "n_layers" in config else "num_hidden_layers"
    return facts.get_size(name, _DEFAULTS[family][2])


def read_hidden_size(config: Mapping[str, Any]) -> int:
    """Return the width of the encoder's output."""
    family = read_family(config)
    name = "dim" if family == "distilbert" and "dim" in config else "hidden_size"
    return _Facts(config).get_size(name, _DEFAULTS[family][0])


def list_modules(config: Mapping[str, Any], *, pooler: bool = False) -> list[Module]:
    """List every encoder module that holds parameters, in no particular order.

    Args:
        config: The model's ``config.json``.
        pooler: Whether the encoder is built with its pooler, where the family has one.

    Raises:
        ModelError: Unsupported family or a damaged configuration.
    """
    family = read_family(config)
    facts = _Facts(config)
    modules = list(_list_modernbert(facts, config) if family == "modernbert" else _list_bert_like(facts, config))
    if pooler and family in _POOLERS:
        hidden = read_hidden_size(config)
        modules.append(Module(_POOLERS[family], hidden * hidden, hidden))
    return modules


def list_linears(config: Mapping[str, Any]) -> list[Linear]:
    """List the linear layers inside the transformer layers, layer by layer.

    Raises:
        ModelError: Unsupported family or a damaged configuration.
    """
    return [module.linear for module in list_modules(config) if module.linear]


def count_encoder(config: Mapping[str, Any], *, pooler: bool = False) -> int:
    """Count all encoder parameters, as instantiated without a head.

    Args:
        config: The model's ``config.json``.
        pooler: Whether the encoder is built with its pooler, where the family has one.
    """
    return sum(module.weight + module.bias for module in list_modules(config, pooler=pooler))


def count_biases(config: Mapping[str, Any], *, pooler: bool = False) -> int:
    """Count all encoder biases, those of normalisation layers included.

    That is what PEFT trains with ``bias="all"``: parameters whose own name is ``bias``
    (`BaseTuner._mark_only_adapters_as_trainable`); MPNet's table ``relative_attention_bias`` is none of them.
    """
    return sum(module.bias for module in list_modules(config, pooler=pooler))


def _make_linear(name: str, kind: str, layer: int, shape: tuple[int, int], bias: bool = True) -> Module:
    in_features, out_features = shape
    linear = Linear(name, kind, layer, in_features, out_features, bias)
    return Module(name, in_features * out_features, out_features if bias else 0, linear)


def _make_norm(name: str, size: int, bias: bool = True) -> Module:
    return Module(name, size, size if bias else 0)


def _list_bert_like(facts: _Facts, config: Mapping[str, Any]) -> Iterator[Module]:
    family = facts.family
    _, intermediate, _, heads, vocabulary, types = _DEFAULTS[family]
    hidden = read_hidden_size(config)
    ffn_name = "hidden_dim" if family == "distilbert" else "intermediate_size"
    ffn = facts.get_size(ffn_name, intermediate)
    heads_name = "n_heads" if family == "distilbert" and "n_heads" in config else "num_attention_heads"
    heads = facts.get_size(heads_name, heads)
    if hidden % heads:
        raise ModelError(f"hidden size {hidden} is no multiple of {heads} attention heads", where="config.json")
    # Only these two families map narrower embeddings to the hidden size by default.
    narrow = {"electra": 128, "albert": 128}.get(family, hidden)
    embedding = facts.get_size("embedding_size", narrow) if family in ("electra", "albert", "deberta-v2") else hidden

    yield Module("embeddings.word_embeddings", facts.get_size("vocab_size", vocabulary) * embedding, 0)
    positions = facts.get_size("max_position_embeddings", 512)
    if family != "deberta-v2" or facts.get_flag("position_biased_input", True):
        yield Module("embeddings.position_embeddings", positions * embedding, 0)
    if family not in ("distilbert", "mpnet"):
        num_types = facts.get_size("type_vocab_size", types, least=0)
        if num_types or family != "deberta-v2":
            yield Module("embeddings.token_type_embeddings", num_types * embedding, 0)
    yield _make_norm("embeddings.LayerNorm", hidden if family == "deberta-v2" else embedding)
    yield from _list_projections(family, embedding, hidden)

    layout = _LAYOUTS[family]
    inner = hidden
    if family == "deberta-v2":
        inner = heads * facts.get_size("attention_head_size", hidden // heads)
        yield from _list_deberta_extras(facts, hidden, positions)
    if family == "mpnet":
        buckets = facts.get_size("relative_attention_num_buckets", 32)
        yield Module("encoder.relative_attention_bias", buckets * heads, 0)
    extras = _list_position_kinds(facts) if family == "deberta-v2" else ()
    for layer in range(read_num_layers(config)):
        prefix = f"{layout.stack}.{layer}"
        if family == "albert":
            group, position = divmod(layer, facts.get_size("inner_group_num", 1))
            prefix = f"{layout.stack}.{group}.albert_layers.{position}"
        for kind, name in (("query", layout.query), ("key", layout.key), ("value", layout.value), *extras):
            yield _make_linear(f"{prefix}.{name}", kind, layer, (hidden, inner))
        yield _make_linear(f"{prefix}.{layout.attention_output}", "attention_output", layer, (hidden, hidden))
        yield _make_linear(f"{prefix}.{layout.ffn_in}", "ffn_in", layer, (hidden, ffn))
        yield _make_linear(f"{prefix}.{layout.ffn_out}", "ffn_out", layer, (ffn, hidden))
        for norm in layout.norms:
            yield _make_norm(f"{prefix}.{norm}", hidden)


def _list_projections(family: str, embedding: int, hidden: int) -> Iterator[Module]:
    if family == "albert":
        yield Module("encoder.embedding_hidden_mapping_in", embedding * hidden, hidden)
    elif family == "electra" and embedding != hidden:
        yield Module("embeddings_project", embedding * hidden, hidden)
    elif family == "deberta-v2" and embedding != hidden:
        yield Module("embeddings.embed_proj", embedding * hidden, 0)


def _list_position_kinds(facts: _Facts) -> tuple[tuple[str, str], ...]:
    # Versions 2 and 3 of DeBERTa usually share these two projections with key and query (share_att_key).
    if not facts.get_flag("relative_attention", False) or facts.get_flag("share_att_key", False):
        return ()
    attention = facts.get_list("pos_att_type", "")
    named = {"pos_key": ("c2p", "attention.self.pos_key_proj"), "pos_query": ("p2c", "attention.self.pos_query_proj")}
    return tuple((kind, name) for kind, (mode, name) in named.items() if mode in attention)


def _list_deberta_extras(facts: _Facts, hidden: int, positions: int) -> Iterator[Module]:
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


def _list_modernbert(facts: _Facts, config: Mapping[str, Any]) -> Iterator[Module]:
    _, intermediate, _, _, vocabulary, _ = _DEFAULTS["modernbert"]
    hidden = read_hidden_size(config)
    ffn = facts.get_size("intermediate_size", intermediate)
    norm_bias = facts.get_flag("norm_bias", False)
    attention_bias = facts.get_flag("attention_bias", False)
    mlp_bias = facts.get_flag("mlp_bias", False)
    yield Module("embeddings.tok_embeddings", facts.get_size("vocab_size", vocabulary) * hidden, 0)
    yield _make_norm("embeddings.norm", hidden, norm_bias)
    for layer in range(read_num_layers(config)):
        prefix = f"layers.{layer}"
        if layer > 0:  # The first layer takes the normalised embeddings as they are.
            yield _make_norm(f"{prefix}.attn_norm", hidden, norm_bias)
        yield _make_linear(f"{prefix}.attn.Wqkv", "qkv", layer, (hidden, 3 * hidden), attention_bias)
        yield _make_linear(f"{prefix}.attn.Wo", "attention_output", layer, (hidden, hidden), attention_bias)
        yield _make_norm(f"{prefix}.mlp_norm", hidden, norm_bias)
        # One matrix holds the input and the gate of the gated linear unit.
        yield _make_linear(f"{prefix}.mlp.Wi", "ffn_in", layer, (hidden, 2 * ffn), mlp_bias)
        yield _make_linear(f"{prefix}.mlp.Wo", "ffn_out", layer, (ffn, hidden), mlp_bias)
    yield _make_norm("final_norm", hidden, norm_bias)
