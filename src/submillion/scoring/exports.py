"""A trained run in formats that others read, each compared with the run's own model before it is handed out.

``merged`` is a whole model: base and adapter added in float32 (Hu et al., arXiv 2106.09685, section 4.1). A native
head, and a linear one on the first state where a stock head computes the same, load as any sequence classifier of
transformers. Any other linear head lies beside the encoder, which then cannot be taken for a classifier. ``adapter``
is PEFT's folder. Every format has one function that writes a folder and one that scores texts by what it says there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from submillion.budget.headers import count_saved_params
from submillion.config.run import ExportFormat
from submillion.data.clean import clean_records
from submillion.encoding.text_encoder import TextEncoder
from submillion.encoding.tokenizer_files import load_tokenizer, read_settings, write_tokenizer
from submillion.errors import ConfigError, RunError
from submillion.progress import Progress, Silent
from submillion.records import Record
from submillion.report.templates import render_markdown
from submillion.run.folder import RunDir, refuse_overwriting
from submillion.run.predictions import read_scored_texts
from submillion.scoring.export_folder import write_folder
from submillion.scoring.run_model import EXPORT_NAME, Trained, read_trained
from submillion.storage.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from submillion.model.encoder import Classifier

NUM_PROBES = 32
BOUND = 1e-3
"""Largest difference of a logit between export and run, both in float32; times the largest logit where that is above 1.

Merging changes the order of float32 sums alone, which moves logits by some 1e-5."""

_EXPORT_FORMAT = 1
_WAYS_OUT = (
    "Its README.md says how to read it, also as ONNX for other runtimes; a run with model.head=native, or for most "
    "families with model.pooling=first, exports as a stock classifier."
)
# Settings of a run's model that say how a text is read, and what the head reads.
_MODEL_SETTINGS = ("head", "pooling", "max_length", "long_texts", "precision")


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: Where it is.
        format: ``merged`` or ``adapter``.
        head: ``native`` or ``linear``.
        loads_with: Python expression that reads the folder.
        num_params: Numbers in its safetensors files.
        num_probes: Texts on which it was compared with the run.
        max_logit_difference: Largest difference found.
        bound: Largest difference allowed.
    """

    folder: Path
    format: ExportFormat
    head: str
    loads_with: str
    num_params: int
    num_probes: int
    max_logit_difference: float
    bound: float

    def to_json(self) -> dict[str, object]:
        """Return the attributes as JSON types."""
        return {**asdict(self), "folder": str(self.folder)}


def export_run(
    folder: Path,
    *,
    format: ExportFormat = "merged",
    out: Path | None = None,
    replaces: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Export a trained run.

    Args:
        folder: The run folder.
        format: Format to write.
        out: The new folder, empty or absent; ``export/<format>`` in the run if None.
        replaces: Whether an existing export is replaced, as a resumed run does.
        progress: Receiver of the stages.

    Raises:
        ConfigError: `out` exists and is not empty.
        RunError: No trained run; or the export gives other logits than the run, and then nothing of it stays.
        ModelError: The base model cannot be found.
    """
    progress = progress or Silent()
    run = RunDir(folder)
    trained = read_trained(run)
    final = out if out is not None else run.path / "export" / format
    if final.exists() and not replaces and (not final.is_dir() or any(final.iterdir())):
        raise ConfigError(
            "exists and is not an empty folder",
            where=str(final),
            hint="Choose another folder with --out, or delete it.",
        )
    refuse_overwriting(final, [trained.base.folder], where=str(final))
    lack = _explain_no_classifier(trained) if format == "merged" else ""
    if lack:
        progress.note(f"the merged folder will be no classifier of transformers: {lack}. {_WAYS_OUT}")
    progress.start(f"export {format}")
    with write_folder(final) as written:
        exported = _write_and_prove(run, trained, written, final, format)
        _let_others_read(written)
    progress.finish()
    return exported


def _write_and_prove(run: RunDir, trained: Trained, folder: Path, final: Path, format: ExportFormat) -> Exported:
    writer = _WRITERS[format]
    probes = _choose_probes(run, trained)
    reference = _load_reference(run, trained)
    expected = _score_reference(reference, run, trained, probes)
    writer.write(reference, run, trained, folder)
    _copy_tokenizer(run, trained, folder)
    found = writer.score(trained, folder, [record.text for record in probes])
    difference = float(np.abs(found - expected).max())
    bound = BOUND * max(1.0, float(np.abs(expected).max()))
    if not difference <= bound:
        raise RunError(
            f"the export gives other logits than the run: they differ by {difference:g}, allowed are {bound:g}",
            where=str(final),
            hint="Nothing was written. This is a fault of the format or of a library; please report it.",
        )
    exported = Exported(
        folder=final,
        format=format,
        head=trained.plan.head,
        loads_with=writer.loads_with[_name_head(trained, format)],
        num_params=count_saved_params(folder.glob("*.safetensors")),
        num_probes=len(probes),
        max_logit_difference=difference,
        bound=bound,
    )
    settings = trained.config.model.model_dump(mode="json", include=set(_MODEL_SETTINGS))
    told = {
        "export_format": _EXPORT_FORMAT,
        "format": format,
        "base": {"name": trained.base.name, "weights_sha256": trained.base.weights_sha256},
        "model": settings,
        "clean": trained.config.data.clean.model_dump(mode="json"),
        "labels": list(trained.labels.names),
        "temperature": trained.temperature,
        "reading": trained.reading.to_json(),
        "plan": trained.plan.to_json(),
        "proof": {"num_probes": exported.num_probes, "max_logit_difference": difference, "bound": bound},
    }
    write_json(folder / EXPORT_NAME, told)
    write_text(folder / "README.md", _describe(trained, exported))
    return exported


def _name_head(trained: Trained, format: ExportFormat) -> str:
    return "linear" if trained.head and (format == "adapter" or _explain_no_classifier(trained)) else "native"


def _choose_probes(run: RunDir, trained: Trained) -> list[Record]:
    """Return texts of the run's validation rows, spread over the file, as the model reads them."""
    texts = read_scored_texts(run, "validation")
    chosen = texts[:: max(1, len(texts) // NUM_PROBES)][:NUM_PROBES]
    records = [Record(str(row), (text,)) for row, text in enumerate(chosen)]
    return list(clean_records(records, trained.config.data.clean))


def _load_reference(run: RunDir, trained: Trained) -> Classifier:
    """Return the run's model with its adapter beside the weights, in float32, on the CPU."""
    import torch

    from submillion.model.encoder import build_classifier

    # No dropout: what is exported keeps the base model's own probabilities in its configuration.
    model = trained.config.model.model_copy(update={"dropout": None, "attention_dropout": None})
    classifier = build_classifier(trained.base, trained.plan, model, adapter_dropout=0.0, dtype=torch.float32, seed=0)
    classifier.load(run.adapter, trained.head)
    return classifier.eval()


def _score_reference(
    reference: Classifier, run: RunDir, trained: Trained, probes: Sequence[Record]
) -> NDArray[np.float32]:
    from submillion.scoring.score import SCORE_TOKENS_FACTOR, score

    model = trained.config.model
    features = TextEncoder(run.tokenizer, model.num_tokens_kept, model.long_texts).encode(probes)
    return score(reference, features, max_tokens=SCORE_TOKENS_FACTOR * trained.config.train.micro_batch_tokens)


def _write_merged(reference: Classifier, run: RunDir, trained: Trained, folder: Path) -> None:
    from submillion.model.adapter import merge_adapter
    from submillion.model.stock import quiet_loading
    from submillion.model.stock_head import add_stock_head, list_saved_tensors

    stock = merge_adapter(reference.wrapped)
    saved = None
    if reference.head is not None:
        if _explain_no_classifier(trained) == "":
            linear = reference.head.linear
            stock = add_stock_head(stock, linear.weight.detach(), linear.bias.detach())
        else:
            saved = list_saved_tensors(stock, trained.plan.family)
    _name_classes(stock.config, trained)
    with quiet_loading():
        stock.save_pretrained(folder, state_dict=saved)
    if saved is not None:
        # A pipeline that cannot load a classifier would take the class that the configuration names instead.
        config = read_json(folder / "config.json")
        write_json(folder / "config.json", {key: value for key, value in config.items() if key != "architectures"})
    if trained.head is not None:
        shutil.copyfile(trained.head, folder / trained.head.name)


def _explain_no_classifier(trained: Trained) -> str:
    """Return why a merged run is no sequence classifier of transformers, as the end of a sentence; empty if it is."""
    if trained.head is None:
        return ""
    from submillion.model.stock_head import explain_no_stock_head

    width = dict(trained.plan.head_modules[-1].tensors)["weight"][1]
    return explain_no_stock_head(
        trained.plan.family,
        pooling=trained.config.model.pooling,
        num_labels=len(trained.labels),
        hidden_size=width,
    )


def _write_adapter(reference: Classifier, run: RunDir, trained: Trained, folder: Path) -> None:
    from submillion.model.adapter import save_adapter
    from submillion.model.known_bases import find_known_base

    config = reference.wrapped.peft_config["default"]
    known = find_known_base(trained.base.name)
    if known is not None:
        # Our short names mean nothing to others.
        config.base_model_name_or_path, config.revision = known.repo, trained.base.revision or known.revision
    save_adapter(reference.wrapped, folder)
    if trained.head is not None:
        shutil.copyfile(trained.head, folder / trained.head.name)


def _name_classes(config: Any, trained: Trained) -> None:
    config._name_or_path = trained.base.name
    if _explain_no_classifier(trained) == "":
        config.id2label = dict(enumerate(trained.labels.names))
        config.label2id = {name: number for number, name in enumerate(trained.labels.names)}
        config.problem_type = "single_label_classification"


def _copy_tokenizer(run: RunDir, trained: Trained, folder: Path) -> None:
    """Write the run's tokenizer; where a whole model is exported, with the length at which texts are to be cut."""
    content = load_tokenizer(run.tokenizer).to_str(pretty=True)
    limit = trained.config.model.num_tokens_kept if (folder / "config.json").exists() else None
    write_tokenizer(folder, content, read_settings(run.tokenizer), max_length=limit)


def _score_merged(trained: Trained, folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    from submillion.model.stock_score import score_merged_folder

    return score_merged_folder(
        folder,
        texts,
        pooling=trained.config.model.pooling if _explain_no_classifier(trained) else None,
        reads=trained.config.model,
    )


def _score_adapter(trained: Trained, folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    from submillion.model.stock_score import score_adapter_folder

    return score_adapter_folder(
        folder,
        texts,
        base=trained.base.folder,
        num_labels=len(trained.labels),
        pooling=None if trained.head is None else trained.config.model.pooling,
        reads=trained.config.model,
    )


def _let_others_read(folder: Path) -> None:
    # Some libraries write files that their owner alone may read.
    mode = (folder / EXPORT_NAME).stat().st_mode & 0o777
    for path in folder.iterdir():
        path.chmod(mode)


_CLASSIFIER = "AutoModelForSequenceClassification.from_pretrained(FOLDER)"


@dataclass(frozen=True)
class _Writer:
    """How one format is written, and scored by what reads it.

    Attributes:
        write: (model, run, trained, new folder); everything but the tokenizer.
        score: (trained, folder, texts) -> logits (n, C), by the folder alone.
        loads_with: By whether the head is one that stock classes have (``native``) or not (``linear``).
    """

    write: Callable[[Classifier, RunDir, Trained, Path], None]
    score: Callable[[Trained, Path, Sequence[str]], NDArray[np.float32]]
    loads_with: dict[str, str]


_WRITERS: dict[ExportFormat, _Writer] = {
    "merged": _Writer(
        _write_merged,
        _score_merged,
        {
            "native": _CLASSIFIER,
            "linear": "submillion.load(FOLDER)",
        },
    ),
    "adapter": _Writer(
        _write_adapter,
        _score_adapter,
        {
            "native": "PeftModel.from_pretrained(AutoModelForSequenceClassification of the base, FOLDER)",
            "linear": "PeftModel.from_pretrained(AutoModel of the base, FOLDER), and head.safetensors on its states",
        },
    ),
}


def _describe(trained: Trained, exported: Exported) -> str:
    """Return the README of an exported folder."""
    return render_markdown(
        "export.md",
        name=trained.config.name,
        format=exported.format,
        labels=trained.labels.names,
        base=trained.base.name,
        model=trained.config.model,
        has_own_head=trained.head is not None,
        is_classifier=exported.loads_with == _CLASSIFIER,
        loads_with=exported.loads_with,
        temperature=trained.temperature,
        num_probes=exported.num_probes,
        difference=exported.max_logit_difference,
        bound=exported.bound,
    )
