"""Every setting of a run, its range and its one default.

Sections are frozen and refuse unknown keys. `parse_config` turns a mapping into a `RunConfig` and reports every
problem at once as a `ConfigError` with dotted paths and spelling suggestions.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from submillion.config.search import PARAMETERS, SearchConfig
from submillion.config.section import ClassName, Fraction, Name, PositiveInt, Section, Seed
from submillion.config.yaml_text import parse_yaml
from submillion.errors import ConfigError

Kind = Literal["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]
KINDS: tuple[Kind, ...] = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
Variant = Literal["lora", "rslora", "dora", "pissa"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["linear", "cosine", "cosine_restarts", "constant"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
ExportFormat = Literal["merged", "adapter"]
LongTexts = Literal["head", "head_tail", "chunks"]

# Figures of the training log, before temperature; f1:NAME is the F1 of one class.
Metric = Annotated[
    str,
    Field(pattern=r"^(accuracy|macro_precision|macro_recall|macro_f1|loss|brier_raw|ece_raw|f1:.+)$"),
]
CLASS_F1 = "f1:"
# mean + 2 standard deviations of the training rows' lengths, or a percentile of them.
LengthRule = Annotated[str, Field(pattern=r"^(auto|p([1-9][0-9]?|100))$")]


Settings = TypeVar("Settings", bound=Section)


class CleanConfig(Section):
    """The repairs that the cleaner makes, each a separate rule. Rules that can damage sound texts are off."""

    entities: bool = Field(False, description="Decode broken and doubly escaped entities (` #39;`, `&lt;`).")
    tags: bool = Field(False, description="Remove HTML tags.")
    line_breaks: bool = Field(False, description="Turn backslash line breaks into spaces.")
    whitespace: bool = Field(True, description="Fold runs of whitespace into one space and trim.")
    unicode: bool = Field(True, description="Normalise to NFC and drop control characters.")


class ExtraConfig(Section):
    """A file of synthetic rows from `submillion augment`, which are trained on beside the real rows."""

    data: str = Field(min_length=1, description="JSON-lines file with id, text, label and provenance.")
    weight: float = Field(1.0, gt=0, le=100, description="Weight of each of its rows in the loss; real rows have 1.")


class SynonymConfig(Section):
    """Rows made from a run's training rows after validation is set aside: words are replaced by WordNet synonyms."""

    copies: PositiveInt = Field(1, description="Most rows made from each training row, all different.")
    rate: float = Field(
        0.5, gt=0, le=1, description="Chance that a replaceable word is replaced; each row replaces at least one."
    )
    rows: PositiveInt | None = Field(
        None, description="Rows wanted, in the proportions of the classes; all that can be made if absent."
    )
    seed: Seed = Field(0, description="Seed for the choices.")
    tagger: Literal["context", "nltk"] = Field(
        "context", description="Parts of speech by frequency and neighbours, or by nltk's trained tagger."
    )
    lexicon: str | None = Field(None, description="Folder of a WordNet database; found if absent.")
    weight: float = Field(1.0, gt=0, le=100, description="Weight of each of these rows in the loss.")


class DataConfig(Section):
    """The source of the records and their preparation."""

    source: str | None = Field(None, description="File, folder, or hub id as hf:owner/name.")
    revision: str | None = Field(None, description="Commit of the hub data set; the newest if absent.")
    text: tuple[Name, ...] = Field((), description="Text columns, joined by a space; found by name if empty.")
    label: Name | None = Field(None, description="Label column; found by name if absent.")
    id: Name | None = Field(None, description="Id column, or `none` for row numbers; found by name if absent.")
    labels: tuple[ClassName, ...] = Field((), description="Class names in label order; from the data if empty.")
    numbers: Literal["names", "ids", "ids-from-1"] | None = Field(
        None,
        description="Meaning of numbers as labels: class names, or label ids that count from 0 or from 1; decided "
        "by the training rows if absent, and the same wherever the run is used.",
    )
    validation_size: float = Field(
        0.1, gt=0, description="Share (below 1) or number of training rows set aside for validation."
    )
    test_size: float = Field(0.1, gt=0, description="The same for test, where the data is a single file.")
    split_seed: Seed = Field(0, description="Seed of the split, separate from the training seed.")
    leaks: Literal["drop", "refuse", "keep"] = Field(
        "drop",
        description="What to do with training rows that appear in validation or test. With `keep`, a split may "
        "separate equal and nearly equal texts, as published systems did.",
    )
    max_class_loss: float = Field(
        0.5, gt=0, le=1, description="Largest share of a class's training rows that may be dropped as leaks."
    )
    unlabelled: Literal["refuse", "drop"] = Field(
        "refuse", description="What to do with rows whose label is empty or -1 where others have labels."
    )
    max_records: PositiveInt | None = Field(
        None, description="Largest number of training rows, stratified and seeded; for trials."
    )
    max_validation_records: PositiveInt | None = Field(
        None, description="Largest number of validation rows, likewise; the others are not used at all."
    )
    extra: tuple[ExtraConfig, ...] = Field(
        (),
        description="Synthetic rows to train on as well. Those that appear in validation or test, or come from a "
        "row that does, are always left out.",
    )
    synonyms: SynonymConfig | None = Field(
        None, description="Synonyms of the training rows to train on as well; `{}` for all defaults."
    )
    min_words: PositiveInt | None = Field(
        None, description="Training rows with fewer words are left out; validation and test keep all rows."
    )
    max_words: PositiveInt | None = Field(None, description="Training rows with more words are left out, likewise.")
    clean: CleanConfig = CleanConfig()

    @model_validator(mode="after")
    def _check_words(self) -> DataConfig:
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self


class ModelConfig(Section):
    """The frozen encoder and the head on it."""

    base: str = Field("minilm-l6", description="Base model: a short name, a hub id or a folder.")
    revision: str | None = Field(None, description="Commit of the hub model; the pinned one if absent.")
    head: Literal["native", "linear"] = Field("linear", description="The architecture's own head or one layer.")
    pooling: Literal["mean", "first"] = Field("mean", description="Hidden state that a linear head reads.")
    max_length: Annotated[int, Field(ge=8)] | LengthRule = Field(
        256,
        description="Most tokens kept of a text, special tokens included, or a rule over the training rows' lengths: "
        "`auto` for mean + 2 standard deviations, `p99` for the 99th percentile.",
    )
    long_texts: LongTexts = Field(
        "head",
        description="Part of a longer text that is read: its beginning, a quarter from its beginning and the rest "
        "from its end, or all of it in chunks whose logits are averaged (in training one chunk a record and epoch).",
    )
    precision: Precision = Field("auto", description="Type of frozen weights and activations; auto: bf16 if fast.")
    dropout: Fraction | None = Field(None, description="Encoder dropout; the base model's own if absent.")
    attention_dropout: Fraction | None = Field(None, description="Dropout of attention weights; `dropout` if absent.")
    head_dropout: Fraction = Field(0.0, description="Dropout before a linear head.")

    @property
    def num_tokens_kept(self) -> int:
        """`max_length` as a number; a run puts one in a rule's place before it encodes anything."""
        assert isinstance(self.max_length, int), f"{self.max_length} has not been replaced by a number"
        return self.max_length


class AdapterConfig(Section):
    """The linear layers that get a low-rank update, and its size."""

    rank: PositiveInt | Literal["auto"] = Field("auto", description="Rank, or auto to fill the budget.")
    alpha: float | None = Field(None, gt=0, description="Numerator of the scaling; twice the rank if absent.")
    dropout: Fraction = Field(0.0, description="Dropout on the adapter's input.")
    targets: tuple[Name, ...] = Field(("all",), min_length=1, description="Kinds, `all`, or full module names.")
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, description="Layer numbers; all if absent.")
    ranks: Mapping[Name, PositiveInt] = Field({}, description="Ranks of single modules or kinds, by name.")
    variant: Variant = Field("lora", description="lora, rslora (alpha/sqrt(rank)), dora or pissa.")
    bias: Literal["none", "lora_only", "all"] = Field("none", description="Encoder biases that train.")


class TrainConfig(Section):
    """The optimizer, its schedule and the times of validation."""

    epochs: float = Field(3.0, gt=0, description="Passes over the training rows; fractions are allowed.")
    max_steps: PositiveInt | None = Field(None, description="Number of optimizer steps; overrides epochs.")
    batch_size: PositiveInt = Field(32, description="Records per optimizer step.")
    micro_batch_tokens: int = Field(4096, ge=8, description="Tokens per forward pass; passes add up to a step.")
    gradient_checkpointing: bool = Field(
        False, description="Compute each layer again in the backward pass: less memory, more time, the same results."
    )
    learning_rate: float = Field(5e-4, gt=0, description="Learning rate of adapter matrices A.")
    learning_rate_b: float | None = Field(None, gt=0, description="Learning rate of matrices B; as A if absent.")
    head_learning_rate: float | None = Field(None, gt=0, description="Learning rate of the head; as A if absent.")
    bias_learning_rate: float | None = Field(None, gt=0, description="Learning rate of the biases; as A if absent.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled decay; biases and DoRA magnitudes have none.")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="AdamW's moment decay rates.")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    schedule: Schedule = Field("linear", description="Course of the learning rates after warmup.")
    num_cycles: PositiveInt = Field(1, description="Cycles of cosine_restarts.")
    warmup_ratio: Fraction = Field(0.06, description="Share of the steps that warm up.")
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Steps of warmup; overrides warmup_ratio."
    )
    clip_norm: float | None = Field(1.0, gt=0, description="Largest gradient norm; null for no clipping.")
    label_smoothing: Fraction = Field(0.0, description="Share of the target spread over all classes.")
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = Field(
        "none", description="Class weights in the loss: balanced weighs by inverse frequency; or one weight a class."
    )
    ema_decay: Fraction | None = Field(None, description="Decay of the average of the trained parameters.")
    evaluate_every: float = Field(1.0, gt=0, description="Interval between validations, in `interval_unit`.")
    save_every: float | None = Field(None, gt=0, description="Interval between checkpoints; evaluate_every if absent.")
    interval_unit: Literal["epochs", "steps"] = Field("epochs", description="Unit of the two intervals.")
    keep_checkpoints: PositiveInt = Field(2, description="Newest checkpoints kept besides the best.")
    metric: Metric = Field(
        "accuracy",
        description="Validation figure that chooses the best checkpoint: the smallest `loss`, `brier_raw` or "
        "`ece_raw`, the largest of any other; `f1:NAME` is the F1 of one class.",
    )
    patience: PositiveInt | None = Field(None, description="Validations without a gain before a stop.")


class WatchConfig(Section):
    """An extra labelled set that is scored and reported, and never influences training."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name in the run folder and the report.")
    data: str = Field(description="File or hub id.")
    labels: str | None = Field(None, description="CSV with id,label if the data has no labels.")


class FinalConfig(Section):
    """The steps after training; runs of a search need none of them."""

    test: bool = Field(True, description="Whether to score the test rows; otherwise the run never sees them.")
    proof: bool = Field(True, description="Whether a fresh process loads the saved run and compares it.")
    report: bool = Field(True, description="Whether to write the report with its training sample, and the model card.")


class RunConfig(Section):
    """A whole run."""

    name: str = Field(
        "run", pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="Recipe name, with which the run folder's name begins."
    )
    about: str = Field("", description="Description of the recipe, and what really ran if it follows others.")
    seed: Seed = Field(0, description="Seed of initialisation, data order and dropout.")
    budget: PositiveInt = Field(1_000_000, description="Trainable parameters must stay strictly below this.")
    start_from: Name | None = Field(
        None, description="Run, checkpoint or PEFT adapter folder with the trained weights to begin with."
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    watch: tuple[WatchConfig, ...] = Field((), description="Extra sets, scored at every validation.")
    baseline: bool = Field(True, description="Whether to train the TF-IDF baseline on the same rows.")
    track: tuple[TrackerName, ...] = Field((), description="Trackers besides log.jsonl, each an extra to install.")
    export: tuple[ExportFormat, ...] = Field(
        (), description="Formats in which the finished run is exported into `export/`, as by `submillion export`."
    )
    threads: PositiveInt | None = Field(None, description="CPU threads; all that the process may use if absent.")
    final: FinalConfig = FinalConfig()
    search: SearchConfig | None = Field(
        None, description="How `submillion tune` searches for better settings; a run ignores it."
    )

    @model_validator(mode="after")
    def _check_watch_names(self) -> RunConfig:
        names = [watch.name for watch in self.watch]
        taken = {"train", "validation", "test", "baseline"}
        for name in names:
            if names.count(name) > 1 or name in taken:
                raise ValueError(f"watch name {name!r} is used twice or reserved ({', '.join(sorted(taken))})")
        return self


def parse_config(values: Mapping[str, Any], *, where: str) -> RunConfig:
    """Validate a mapping as a run configuration.

    Args:
        values: Nested settings, as read from YAML.
        where: Source of the values, for the error message.

    Raises:
        ConfigError: Some settings do not fit; the error lists every problem by dotted path.
    """
    return parse_settings(
        RunConfig, values, where=where, hint="`submillion recipes show agnews-minilm` prints a complete example."
    )


def parse_settings(kind: type[Settings], values: Mapping[str, Any], *, where: str, hint: str) -> Settings:
    """Validate a mapping as settings of any kind.

    Args:
        kind: Type of the top section.
        values: Nested settings, as read from YAML.
        where: Source of the values, for the error message.
        hint: Place of an example, for the error message.

    Raises:
        ConfigError: Some settings do not fit; the error lists every problem by dotted path.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        problems = "\n".join(_describe(problem, kind) for problem in error.errors())
        raise ConfigError(problems, where=where, hint=hint) from None


def _describe(problem: Any, root: type[Section]) -> str:
    # Pydantic also names the branch of a union, which is not part of the user's path.
    path = ".".join(str(part) for part in problem["loc"] if "[" not in str(part) and not _is_branch(part))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1], root)
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        suggestion = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{path}: unknown setting; {suggestion}"
    if problem["type"] == "model_type":
        inside = ", ".join(_known_keys(problem["loc"], root))
        return f"{path}: expected a section, with settings among {inside}; got {problem['input']!r:.120}"
    if problem["type"] == "tuple_type":
        return f"{path}: expected a list, got {problem['input']!r:.120}"
    return f"{path or 'configuration'}: {problem['msg']}, got {problem['input']!r:.120}"


def _is_branch(part: int | str) -> bool:
    return str(part).startswith(("constrained-", "function-")) or part in {"int", "float", "str"}


def _known_keys(location: Sequence[int | str], root: type[Section]) -> list[str]:
    section: Any = root
    for part in location:
        field = getattr(section, "model_fields", {}).get(part)
        if field is not None:
            sections = {"watch": WatchConfig, "extra": ExtraConfig, "synonyms": SynonymConfig, "search": SearchConfig}
            section = sections.get(str(part), field.annotation)
        elif part in PARAMETERS:
            section = PARAMETERS[str(part)]
    return sorted(getattr(section, "model_fields", {}))


def dump_config(config: RunConfig) -> str:
    """Return the configuration as YAML with every setting spelled out; `load_yaml` and `parse_config` read it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def load_yaml(text: str, *, where: str) -> dict[str, Any]:
    """Parse YAML text that must be a mapping.

    Raises:
        ConfigError: `parse_yaml` refuses the text, or the top is not a mapping.
    """
    values = parse_yaml(text, where=where)
    if not isinstance(values, dict):
        raise ConfigError(f"expected settings, found {type(values).__name__}", where=where)
    return values
