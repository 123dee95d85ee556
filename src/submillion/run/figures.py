"""What the JSON files of a run hold, as types: `run/shapes.py` checks the files against the same keys."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from submillion.storage.json_shapes import JsonObject


class ReliabilityPoint(TypedDict):
    """One bin of a reliability diagram; shares are 0..1."""

    confidence: float
    accuracy: float
    num_records: int


class AnsweredShare(TypedDict):
    """Accuracy where only the most confident share of the rows is answered."""

    coverage: float
    threshold: float
    accuracy: float


class ClassFigures(TypedDict):
    """Figures of one class; `num_records` counts its true rows."""

    label: str
    num_records: int
    precision: float
    recall: float
    f1: float


class SetFigures(TypedDict):
    """``evaluation/<split>.json``: the figures of one scored set, as `metrics.evaluate.Evaluation` has them."""

    num_records: int
    accuracy: float
    accuracy_interval: list[float]
    macro_f1: float
    macro_f1_interval: list[float]
    per_class: list[ClassFigures]
    confusion: list[list[int]]
    ece: float
    ece_raw: float
    brier: float
    num_truncated: NotRequired[int]
    temperature: NotRequired[float]
    reliability: NotRequired[list[ReliabilityPoint]]
    reliability_raw: NotRequired[list[ReliabilityPoint]]
    coverage: NotRequired[list[AnsweredShare]]


class PairedFigures(TypedDict):
    """Accuracy of the model minus that of the baseline on the same rows."""

    difference: float
    interval: list[float]
    mcnemar_p: float


class BaselineFigures(TypedDict):
    """``evaluation/<split>.baseline.json``."""

    num_records: int
    accuracy: float
    accuracy_interval: list[float]
    comparison: NotRequired[PairedFigures | None]


class SampleFigures(TypedDict):
    """``evaluation/train.sample.json``: training rows that were scored at the end."""

    num_records: int
    num_train: int
    accuracy: float
    accuracy_interval: list[float]


class SyntheticFile(TypedDict):
    """A file of synthetic rows that were trained on as well."""

    data: str
    sha256: str
    num_used: int
    weight: float
    num_dropped: dict[str, int]
    methods: dict[str, int]


class Found(TypedDict, total=False):
    """Rows of one kind that the doctor found."""

    num_records: int


class Histogram(TypedDict):
    """Counts between edges, of which there is one more."""

    edges: list[float]
    counts: list[int]


class Lengths(TypedDict, total=False):
    """Lengths of the texts of a split, in `unit`."""

    unit: str
    mean: float
    max: int
    histogram: Histogram | None


class PlaceOfLeak(TypedDict, total=False):
    """Where two rows with the same text are, and the text."""

    left: str
    right: str
    text: str


class FoundLeak(TypedDict):
    """Rows of one split that are in another one, too."""

    left: str
    right: str
    kind: str
    num_records: int
    examples: NotRequired[list[PlaceOfLeak]]


class SplitFindings(TypedDict):
    """What the doctor found in one split."""

    num_records: int
    class_counts: NotRequired[dict[str, int] | None]
    lengths: NotRequired[Lengths | None]
    exact_duplicates: NotRequired[Found]
    near_duplicates: NotRequired[Found]
    empty: NotRequired[Found]
    too_long: NotRequired[Found]
    damage: NotRequired[dict[str, Found]]
    legibility: NotRequired[JsonObject | None]


class Findings(TypedDict):
    """What the doctor found in all splits, as ``check --json`` has it."""

    num_records: int
    num_exact_duplicates: int
    num_near_duplicates: int
    num_label_conflicts: NotRequired[int]
    leaks: NotRequired[list[FoundLeak] | None]
    splits: dict[str, SplitFindings]
    legibility: NotRequired[JsonObject | None]


class DataFile(TypedDict, total=False):
    """``data.json``: sizes and digests of what was read, and what the doctor found."""

    files: dict[str, str]
    split: str
    num_train: int
    num_validation: int
    num_test: int
    num_dropped_leaks: int
    num_dropped_short: int
    num_dropped_long: int
    extra: list[SyntheticFile] | None
    check: Findings
