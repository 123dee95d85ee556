"""The building blocks of settings: frozen sections, and types of values that several of them use."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


def _refuse_huge(value: int) -> int:
    if value >= 1 << 63:
        raise ValueError("whole numbers of 64 bits and more fit into no array")
    return value


PositiveInt = Annotated[int, Field(ge=1), AfterValidator(_refuse_huge)]
Seed = Annotated[int, Field(ge=0), AfterValidator(_refuse_huge)]


def _refuse_boolean(value: object) -> object:
    # YAML 1.1 reads the bare words yes, no, on and off as booleans.
    if isinstance(value, bool):
        raise ValueError(f"got the boolean {value}; YAML reads bare yes/no/on/off as one, put the word in quotes")
    return value


def _spell_number(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Name = Annotated[str, BeforeValidator(_refuse_boolean)]
ClassName = Annotated[Name, BeforeValidator(_spell_number)]
"""Class names may be numbers, which YAML does not read as text."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
