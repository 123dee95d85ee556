"""Every setting of `augment generate`, its range and its one default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from submillion.config.nested import apply_overrides
from submillion.config.run import parse_settings
from submillion.config.section import Fraction, Name, PositiveInt, Section

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class FinetuneSettings(Section):
    """How the language model is adapted to the rows that it is given."""

    epochs: float = Field(3.0, ge=0, description="Passes over the rows; 0 samples from the unchanged model.")
    max_steps: PositiveInt | None = Field(None, description="Number of optimizer steps; overrides epochs.")
    block_tokens: int = Field(256, ge=16, description="Tokens in a block, into which whole rows are packed.")
    batch_size: PositiveInt = Field(4, description="Blocks per optimizer step.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; if absent, 5e-4 for LoRA, 5e-5 with full, 1e-3 from scratch."
    )
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay; vectors have none.")
    warmup_ratio: Fraction = Field(0.06, description="Share of the steps that warm up; half a cosine follows.")
    clip_norm: float | None = Field(1.0, gt=0, description="Largest gradient norm; null for no clipping.")
    rank: PositiveInt = Field(8, description="Rank of LoRA on every linear layer; not used with full.")
    alpha: float = Field(16.0, gt=0, description="Numerator of LoRA's scaling.")
    dropout: Fraction = Field(0.05, description="Dropout on LoRA's input.")
    save_every: PositiveInt = Field(50, description="Optimizer steps between checkpoints.")
    held_out: Fraction = Field(0.05, description="Share of the rows that only measure the loss.")


class SampleSettings(Section):
    """How rows are drawn from the language model."""

    min_tokens: PositiveInt = Field(1, description="Smallest length drawn, in new tokens.")
    max_tokens: PositiveInt = Field(128, description="Largest length drawn, in new tokens.")
    temperature: float = Field(1.0, gt=0, description="Divisor of the logits.")
    top_p: float = Field(0.95, gt=0, le=1, description="Total probability of the likeliest tokens that may be drawn.")
    repetition_penalty: float = Field(1.3, ge=1, description="Penalty for tokens already in the row; 1 is none.")
    batch_size: PositiveInt = Field(32, description="Rows sampled together.")
    keep_prompt: bool = Field(True, description="Whether to keep the prompt as the beginning of the row.")

    @model_validator(mode="after")
    def _check_lengths(self) -> SampleSettings:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class ScreenSettings(Section):
    """Which sampled rows are kept."""

    min_words: PositiveInt = Field(5, description="Shorter rows are dropped.")
    max_words: PositiveInt = Field(512, description="Longer rows are dropped.")
    min_probability: Probability = Field(
        0.5, description="Rows are dropped where the classifier gives the prompted class less than this."
    )

    @model_validator(mode="after")
    def _check_words(self) -> ScreenSettings:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self


class GenerateSettings(Section):
    """Everything that decides which rows are generated from the same files."""

    model: Name = Field("gpt2", description="Causal language model: a short name, a hub id or a folder.")
    revision: Name | None = Field(None, description="Commit of the hub model; the pinned one if absent.")
    from_scratch: bool = Field(False, description="Train a tiny model on the given rows alone; its text is junk.")
    full: bool = Field(False, description="Train every parameter of the language model instead of LoRA.")
    conditional: bool = Field(False, description="Train on `label: text` of the training rows; no prompts.")
    seed: int = Field(0, ge=0, description="Seed of fine-tuning and of every row.")
    keep: PositiveInt = Field(500, description="Rows to keep of each class.")
    attempts: PositiveInt = Field(10, description="Most rows sampled for each one to keep.")
    threads: PositiveInt | None = Field(None, description="CPU threads; all that the process may use if absent.")
    finetune: FinetuneSettings = FinetuneSettings()
    sample: SampleSettings = SampleSettings()
    screen: ScreenSettings = ScreenSettings()

    @model_validator(mode="after")
    def _check_model(self) -> GenerateSettings:
        if self.from_scratch and (self.model != "gpt2" or self.revision is not None):
            raise ValueError(f"from_scratch builds a new model and cannot use model {self.model!r}")
        if self.from_scratch and not self.is_tuned:
            raise ValueError("from_scratch needs training: finetune.epochs is 0")
        return self

    @property
    def is_tuned(self) -> bool:
        """Whether the language model is adapted at all."""
        return self.finetune.epochs > 0 or self.finetune.max_steps is not None

    @property
    def learning_rate(self) -> float:
        """The peak learning rate of fine-tuning."""
        if self.finetune.learning_rate is not None:
            return self.finetune.learning_rate
        return 1e-3 if self.from_scratch else 5e-5 if self.full else 5e-4


def make_settings(
    values: Mapping[str, object], overrides: Mapping[str, object] = {}, *, where: str
) -> GenerateSettings:
    """Return settings from nested values, with overrides by dotted path applied last.

    Args:
        values: Nested settings, read from YAML or given by flags.
        overrides: Changed settings, such as ``{"sample.top_p": 0.9}``.
        where: Source of the values, for the error message.

    Raises:
        ConfigError: A setting is unknown or a value does not fit; the error lists all of them.
    """
    return parse_settings(
        GenerateSettings, apply_overrides(values, overrides), where=where, hint="docs/generate.md lists every setting."
    )
