"""The table of model families, with one entry for each: everything that the package knows about an architecture.

No other module names a family. Every difference between families is a value of an entry, and the code that counts,
loads, runs and scores encoders reads it there. Names of modules and settings are those of `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from submillion.errors import ModelError

HeadForm = Literal["token", "pooler", "plain_pooler", "context_pooler", "pre_classifier", "prediction"]
"""Kind of a native head, a key of `submillion.model.heads.NATIVE_HEADS`."""


@dataclass(frozen=True, slots=True)
class LayerNames:
    """Names of the linear layers and norms of a transformer layer, relative to the layer.

    Attributes:
        stack: Name of the list of layers, relative to the encoder.
        query: The projection to queries.
        key: The projection to keys.
        value: The projection to values.
        attention_output: The projection of the attention's output.
        attention_norm: The norm after attention.
        ffn_in: The first projection of the feed-forward part.
        ffn_out: The second projection of the feed-forward part.
        ffn_norm: The norm after the feed-forward part.
    """

    stack: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    ffn_in: str = "intermediate.dense"
    ffn_out: str = "output.dense"
    ffn_norm: str = "output.LayerNorm"


@dataclass(frozen=True, slots=True)
class FusedLayerNames:
    """Names in a layer that has one matrix for queries, keys and values, a gated feed-forward part and early norms.

    Attributes:
        stack: Name of the list of layers, relative to the encoder.
        attention_norm: The norm before attention; the first layer has none.
        qkv: The projection to queries, keys and values.
        attention_output: The projection of the attention's output.
        ffn_norm: The norm before the feed-forward part.
        ffn_in: The matrix with the input and the gate of the gated linear unit.
        ffn_out: The projection back to the states.
        words: The table of words, relative to the encoder.
        words_norm: The norm after the table of words, relative to the encoder.
        last_norm: The norm after the last layer, relative to the encoder.
    """

    stack: str = "layers"
    attention_norm: str = "attn_norm"
    qkv: str = "attn.Wqkv"
    attention_output: str = "attn.Wo"
    ffn_norm: str = "mlp_norm"
    ffn_in: str = "mlp.Wi"
    ffn_out: str = "mlp.Wo"
    words: str = "embeddings.tok_embeddings"
    words_norm: str = "embeddings.norm"
    last_norm: str = "final_norm"


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Facts about a family that the CPU kernels need besides the names of its layers.

    Attributes:
        attention: The module in a layer whose `dropout` acts on the attention weights.
        attention_output_dropout: The dropout module for the output of attention; None if there is none.
        ffn_output_dropout: The dropout module for the output of the feed-forward part.
        head_activation: Activation before the native head's last layer.
    """

    attention: str = "attention.self"
    attention_output_dropout: str | None = "attention.output.dropout"
    ffn_output_dropout: str = "output.dropout"
    head_activation: Literal["tanh", "gelu", "relu"] = "tanh"


@dataclass(frozen=True, slots=True)
class SizeNames:
    """Settings of ``config.json`` that give an encoder's sizes; of several names, the first that exists is used.

    Attributes:
        hidden: Width H of the states.
        intermediate: Width of the feed-forward part.
        layers: Number of layers.
        heads: Number of attention heads.
    """

    hidden: tuple[str, ...] = ("hidden_size",)
    intermediate: tuple[str, ...] = ("intermediate_size",)
    layers: tuple[str, ...] = ("num_hidden_layers",)
    heads: tuple[str, ...] = ("num_attention_heads",)


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of the `transformers` configuration class for missing settings.

    Attributes:
        hidden: Width H of the states.
        intermediate: Width of the feed-forward part.
        layers: Number of layers.
        heads: Number of attention heads.
        vocabulary: Number of words.
        types: Number of token types. With 0, no table is made for 0 types; None if the family never has one.
    """

    hidden: int = 768
    intermediate: int = 3072
    layers: int = 12
    heads: int = 12
    vocabulary: int = 30522
    types: int | None = 2


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer from embeddings with another width (``embedding_size``) to the states.

    Attributes:
        name: Name of the layer, relative to the encoder.
        width: Width of the embeddings if the configuration gives none; None for the width of the states.
        bias: Whether it has a bias.
        is_always_there: Whether it exists even if the widths are equal.
        is_before_norm: Whether the norm of the embeddings follows it.
    """

    name: str
    width: int | None = None
    bias: bool = True
    is_always_there: bool = False
    is_before_norm: bool = False


@dataclass(frozen=True, slots=True)
class PositionBias:
    """A bias on attention scores by head and distance, with one table of buckets for all layers.

    Attributes:
        table: Name of the table (buckets, heads), relative to the encoder.
        num_buckets: Number of buckets of both directions together. The stock model uses it, whatever the configuration
            says.
        max_distance: Distance from which all larger ones share the last bucket of their direction.
    """

    table: str
    num_buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True, slots=True)
class Family:
    """One model family.

    Attributes:
        name: The configuration's ``model_type``.
        prefix: Name under which a stock classification model holds its encoder (its ``base_model_prefix``).
        head: Kind of the native head.
        head_dense: The native head's dense layer before the last one, H -> H, initialised at random; None without one.
        pooler: The encoder's pooler, H -> H, which is optional when the encoder is built; None without one. A native
            head without a dense layer reads it.
        layers: Names of the modules in a layer.
        shared_layers: Name of the list of layers in one of the stack's groups, if layers share their weights.
        sizes: Settings that give the sizes.
        defaults: Values of settings that are missing.
        projection: Projection from embeddings to states, for families whose embeddings may have another width.
        positions: ``table`` for learned positions, ``optional`` if ``position_biased_input`` can leave them out, or
            ``rotary`` for positions without a table and so without a limit.
        counts_from_padding: Whether position ids begin after that of padding, at ``pad_token_id`` + 1, and not at 0.
        is_disentangled: Whether attention multiplies content with relative positions and has projections for this.
        position_bias: Bias that attention adds to its scores by distance; None for no bias.
        is_packed: Whether attention sees record boundaries. Either it goes through transformers' AttentionInterface and
            passes on the keywords of the forward pass, or `model/biased_attention.py` replaces it. Other families are
            padded. The interface accepts any model and only warns about those that ignore it, so test before you set
            this.
        kernels: Facts for the CPU kernels; None for families that run only on stock modules.
        tokenizer: Class of transformers that converts the family's vocabulary files; None if it never had any.
    """

    name: str
    prefix: str
    head: HeadForm
    head_dense: str | None = None
    pooler: str | None = None
    layers: LayerNames | FusedLayerNames = LayerNames()
    shared_layers: str | None = None
    sizes: SizeNames = SizeNames()
    defaults: Defaults = Defaults()
    projection: Projection | None = None
    positions: Literal["table", "optional", "rotary"] = "table"
    counts_from_padding: bool = False
    is_disentangled: bool = False
    position_bias: PositionBias | None = None
    is_packed: bool = False
    kernels: KernelFacts | None = None
    tokenizer: str | None = None

    @property
    def head_last(self) -> str:
        """The name of the native head's last layer in the stock classification model."""
        inside = self.head_dense is not None and self.head_dense.startswith("classifier.")
        return "classifier.out_proj" if inside else "classifier"

    @property
    def head_reads_pooler(self) -> bool:
        """Whether the native head reads the encoder's pooler."""
        return self.pooler is not None and self.head_dense is None

    @property
    def is_plain(self) -> bool:
        """Whether each layer has its own weights, and attention sees positions at most as a bias by distance."""
        is_split = isinstance(self.layers, LayerNames) and self.shared_layers is None
        return is_split and not self.is_disentangled


_BERT = Family(
    tokenizer="BertTokenizer",
    name="bert",
    prefix="bert",
    head="pooler",
    pooler="pooler.dense",
    is_packed=True,
    kernels=KernelFacts(),
)
_ROBERTA = replace(
    _BERT,
    tokenizer="RobertaTokenizer",
    name="roberta",
    prefix="roberta",
    head="token",
    head_dense="classifier.dense",
    defaults=Defaults(vocabulary=50265),
    counts_from_padding=True,
)
_XLM_ROBERTA = replace(_ROBERTA, name="xlm-roberta", defaults=Defaults(), tokenizer="XLMRobertaTokenizer")
_CAMEMBERT = replace(_XLM_ROBERTA, name="camembert", tokenizer="CamembertTokenizer")
_ELECTRA = replace(
    _BERT,
    name="electra",
    prefix="electra",
    head="token",
    head_dense="classifier.dense",
    pooler=None,
    defaults=Defaults(hidden=256, intermediate=1024, heads=4),
    projection=Projection("embeddings_project", width=128),
    kernels=KernelFacts(head_activation="gelu"),
)
_DISTILBERT = Family(
    tokenizer="BertTokenizer",
    name="distilbert",
    prefix="distilbert",
    head="pre_classifier",
    head_dense="pre_classifier",
    layers=LayerNames(
        stack="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        ffn_norm="output_layer_norm",
    ),
    sizes=SizeNames(
        hidden=("dim", "hidden_size"),
        intermediate=("hidden_dim",),
        layers=("n_layers", "num_hidden_layers"),
        heads=("n_heads", "num_attention_heads"),
    ),
    defaults=Defaults(layers=6, types=None),
    is_packed=True,
    kernels=KernelFacts(
        attention="attention",
        attention_output_dropout=None,
        ffn_output_dropout="ffn.dropout",
        head_activation="relu",
    ),
)
_MODERNBERT = Family(
    name="modernbert",
    prefix="model",
    head="prediction",
    layers=FusedLayerNames(),
    defaults=Defaults(intermediate=1152, layers=22, vocabulary=50368, types=None),
    positions="rotary",
    is_packed=True,
)
_ALBERT = Family(
    tokenizer="AlbertTokenizer",
    name="albert",
    prefix="albert",
    head="plain_pooler",
    pooler="pooler",
    layers=LayerNames(
        stack="encoder.albert_layer_groups",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.dense",
        attention_norm="attention.LayerNorm",
        ffn_in="ffn",
        ffn_out="ffn_output",
        ffn_norm="full_layer_layer_norm",
    ),
    shared_layers="albert_layers",
    defaults=Defaults(hidden=4096, intermediate=16384, heads=64, vocabulary=30000),
    projection=Projection("encoder.embedding_hidden_mapping_in", width=128, is_always_there=True),
)
_DEBERTA_V2 = Family(
    tokenizer="DebertaV2Tokenizer",
    name="deberta-v2",
    prefix="deberta",
    head="context_pooler",
    head_dense="pooler.dense",
    layers=LayerNames(
        query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"
    ),
    defaults=Defaults(hidden=1536, intermediate=6144, layers=24, heads=24, vocabulary=128100, types=0),
    projection=Projection("embeddings.embed_proj", bias=False, is_before_norm=True),
    positions="optional",
    is_disentangled=True,
)
_MPNET = Family(
    tokenizer="MPNetTokenizer",
    name="mpnet",
    prefix="mpnet",
    head="token",
    head_dense="classifier.dense",
    pooler="pooler.dense",
    layers=LayerNames(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    defaults=Defaults(vocabulary=30527, types=None),
    counts_from_padding=True,
    position_bias=PositionBias("encoder.relative_attention_bias"),
    is_packed=True,
    kernels=KernelFacts(attention="attention.attn", attention_output_dropout="attention.dropout"),
)
_ENTRIES = (
    *(_ALBERT, _BERT, _CAMEMBERT, _DEBERTA_V2, _DISTILBERT),
    *(_ELECTRA, _MODERNBERT, _MPNET, _ROBERTA, _XLM_ROBERTA),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ENTRIES}
"""All families, by ``model_type``."""


def get_family(name: str) -> Family:
    """Return a family by its name.

    Raises:
        ModelError: There is no such family. The message lists the supported ones.
    """
    if name not in FAMILIES:
        raise ModelError(
            f"models of type {name!r} are not supported",
            hint=f"Supported encoder types: {', '.join(sorted(FAMILIES))}.",
        )
    return FAMILIES[name]


def read_family(config: Mapping[str, object]) -> Family:
    """Return the family that a configuration's ``model_type`` names.

    Raises:
        ModelError: There is no such family, or the model is a decoder that reads an encoder's states.
    """
    family = get_family(str(config.get("model_type")))
    if config.get("add_cross_attention"):
        raise ModelError(f"this {family.name} has cross-attention", hint="Use an encoder: add_cross_attention false.")
    return family
