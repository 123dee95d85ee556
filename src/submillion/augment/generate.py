"""Generate labelled rows with a language model that is adapted to the domain, and keep those that pass the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from submillion.augment.filter_rows import REASONS, Draft, Screen
from submillion.augment.generation_state import MODEL_PATH, WorkDir, append_batch, open_work, read_batches
from submillion.augment.prompt_examples import (
    Inputs,
    Material,
    begin_conditional,
    check_inputs,
    digest_classifier,
    read_material,
)
from submillion.config.generate import GenerateSettings
from submillion.data.clean import clean_text
from submillion.data.synthetic import SyntheticRow, describe_origin, digest_settings, write_rows
from submillion.errors import ConfigError, DataError
from submillion.progress import Progress, Silent
from submillion.storage.files import read_json, write_json
from submillion.storage.json_shapes import JsonObject

if TYPE_CHECKING:
    from submillion.augment.language_model import LanguageModel
    from submillion.augment.sample import Start
    from submillion.scoring.run_model import RunModel
    from submillion.training.device import Device

JUNK = "The language model was trained from scratch on a few rows: it writes junk, good only for trying the steps."


@dataclass(frozen=True)
class Generated:
    """The result of a generation.

    Attributes:
        out: File of the kept rows.
        counts: Counts of rows read, kept and dropped; also written beside the output.
    """

    out: Path
    counts: JsonObject


@dataclass(frozen=True)
class _Origin:
    """The origin that every row of a generation records."""

    settings: JsonObject
    model: str
    model_sha256: str
    classifier: str | None


def generate_rows(
    inputs: Inputs, out: Path, settings: GenerateSettings | None = None, *, progress: Progress | None = None
) -> Generated:
    """Adapt a language model, sample rows of every class, screen them, and write those that are kept.

    Unfinished work is kept in ``<out>.work``, and a second call with the same arguments continues it. The rows appear
    whole in `out`, after ``<out without suffix>.counts.json``. The adapted model stays in the work folder.

    Args:
        inputs: Files of the generation.
        out: File for the rows, a .jsonl file that does not exist yet.
        settings: All other settings; the defaults if absent.
        progress: Receiver of stages, counts and notes.

    Raises:
        ConfigError: Settings or files do not fit each other, prompts do not fit the classes, the output exists, or the
            work was begun with other settings or files.
        DataError: A file cannot be read, or no row was kept.
        ModelError: The language model or the classifier is not available.
        RunError: The loss is not finite, the disk is full, or a work folder is damaged.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; another call continues the work.
    """
    settings, progress = settings or GenerateSettings(), progress or Silent()
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out.name!r} does not end in .jsonl", where="--out", hint="Rows are written as JSON lines.")
    check_inputs(inputs, settings)
    from submillion.training.device import open_device

    classifier = _load_classifier(inputs, settings)
    material = read_material(inputs, settings, classifier, progress)
    device = open_device("auto", settings.threads)
    work = WorkDir(out)
    begun: JsonObject = {
        "settings": settings.model_dump(mode="json"),
        "files": material.digests,
        "classifier": None if classifier is None else digest_classifier(classifier),
        "threads": device.threads,
    }
    _note_material(material, classifier, settings, progress)
    with open_work(work, begun) as is_resumed:
        if is_resumed:
            progress.note(f"continuing the work in {work.path}")
        language_model, figures = _prepare_model(work, material, settings, device, progress)
        origin = _Origin(begun, figures["name"], figures["sha256"], begun["classifier"])
        generation = _Generation(
            work, material, settings, model=language_model, classifier=classifier, origin=origin, progress=progress
        )
        kept = generation.run()
        counts = {**_count(generation, material, settings), "language_model": figures} | material.counts
        counts |= {**begun, "classifier": _describe_classifier(inputs, begun["classifier"])}
        if not kept:
            raise _explain_nothing_kept(counts, work, settings)
        write_json(work.counts, counts)
        write_rows(work.out, kept)
    return Generated(out, counts)


def _load_classifier(inputs: Inputs, settings: GenerateSettings) -> RunModel | None:
    if inputs.classifier is None:
        return None
    from submillion.scoring.run_model import load_run

    return load_run(inputs.classifier, threads=settings.threads)


def _note_material(
    material: Material, classifier: RunModel | None, settings: GenerateSettings, progress: Progress
) -> None:
    rows = material.counts["rows"]
    if rows["num_rows"]:
        progress.note(
            f"{rows['num_used']:,} of {rows['num_rows']:,} {rows['from']} rows for the language model; "
            f"{rows['num_in_test']:,} appear in a test file and are left out"
        )
    if not material.real:
        progress.note("no real rows are given, so the generated ones are not compared with any")
    if classifier is None:
        progress.note("no classifier is given, so the classes of the rows are not checked")
    if settings.from_scratch:
        progress.note(JUNK)


def _prepare_model(
    work: WorkDir, material: Material, settings: GenerateSettings, device: Device, progress: Progress
) -> tuple[LanguageModel, JsonObject]:
    """Return the language model to sample from, and its description."""
    from submillion.augment.finetune import FIGURES_NAME, MODEL_NAME, finetune
    from submillion.augment.language_model import (
        SCRATCH_NAME,
        build_scratch_model,
        digest_language_model,
        find_language_model,
        load_language_model,
    )

    folder = work.language_model
    figures: JsonObject = {"name": SCRATCH_NAME, "revision": None, "base_sha256": None}
    if settings.from_scratch:
        base = work.scratch
        if not base.is_dir():
            if not material.rows:
                raise DataError("no row is left to train the language model on", hint="Give more rows.")
            build_scratch_model(material.rows, base, seed=settings.seed)
    else:
        found = find_language_model(settings.model, settings.revision)
        base = found.folder
        figures = {"name": found.name, "revision": found.revision, "base_sha256": found.weights_sha256}
    name = str(figures["name"])
    if not settings.is_tuned:
        sampled = base
        figures["sha256"] = figures["base_sha256"]
    else:
        sampled = folder / MODEL_NAME
        if not (folder / FIGURES_NAME).exists():
            progress.start("load")
            language_model = load_language_model(base, name=name)
            progress.finish()
            encode_beginnings(language_model, material, settings)  # it fails before training if sampling is impossible
            finetune(language_model, material.rows, settings, folder, device=device, progress=progress)
        figures["finetuned"] = read_json(folder / FIGURES_NAME)
        figures["sha256"] = digest_language_model(sampled)
    language_model = load_language_model(sampled, name=name)
    language_model.model.to(device.device)
    return language_model, figures


def encode_beginnings(
    language_model: LanguageModel, material: Material, settings: GenerateSettings
) -> list[list[tuple[str, list[int]]]]:
    """Return the beginnings of every class with their token ids, start token left out.

    Raises:
        ConfigError: The longest one leaves too little room for the rows.
    """
    prompts = material.prompts
    beginnings = []
    for name in material.labels:
        texts = (begin_conditional(name),) if prompts is None else prompts[name]
        beginnings.append([(text, language_model.encode(text)) for text in texts])
    longest = 1 + max(len(ids) for listed in beginnings for _, ids in listed)
    room = language_model.max_tokens - longest
    if settings.sample.max_tokens > room:
        raise ConfigError(
            f"{settings.sample.max_tokens} new tokens after a prompt of {longest} are more than the"
            f" {language_model.max_tokens} tokens that the model can read",
            where="sample.max_tokens",
            hint=f"Choose at most {room}." if room > 0 else "Shorten the prompts.",
        )
    return beginnings


class _Generation:
    """Sampling and screening in progress, from the first draft or from the place where another process stopped."""

    def __init__(
        self,
        work: WorkDir,
        material: Material,
        settings: GenerateSettings,
        *,
        model: LanguageModel,
        classifier: RunModel | None,
        origin: _Origin,
        progress: Progress,
    ) -> None:
        self.work, self.material, self.settings = work, material, settings
        self.language_model, self.classifier = model, classifier
        self.origin, self.progress = origin, progress
        self.names = material.labels.names
        self.beginnings = encode_beginnings(model, material, settings)
        self.num_attempts = [0] * len(self.names)
        self.reasons = [Counter[str]() for _ in self.names]
        self.rows: list[SyntheticRow] = []
        self.screen = Screen(
            settings.screen,
            material.real,
            material.places,
            [settings.keep] * len(self.names),
            None if classifier is None else self._score,
        )
        self._digest = digest_settings(origin.settings)[:12]

    def _score(self, texts: Sequence[str]) -> NDArray[np.floating]:
        assert self.classifier is not None
        return np.array([prediction.probabilities for prediction in self.classifier.classify(texts)])

    def run(self) -> list[SyntheticRow]:
        for batch in read_batches(self.work):
            for entry in batch["drafts"]:
                self._take(entry)
                if entry["reason"] is None:
                    self.screen.remember(Draft(entry["text"], entry["label"]))
        total = self.settings.keep * len(self.names)
        self.progress.start("generate", total, len(self.rows))
        while chosen := self._choose_batch():
            entries = self._sample(chosen)
            verdicts = self.screen.judge([Draft(entry["text"], entry["label"]) for entry in entries])
            for entry, verdict in zip(entries, verdicts, strict=True):
                entry |= {"reason": verdict.reason, "probability": verdict.probability, "near": verdict.near}
            append_batch(self.work, {"drafts": entries})
            for entry in entries:
                self._take(entry)
            attempts = sum(self.num_attempts)
            self.progress.advance(len(self.rows), drafts=attempts)
        self.progress.finish()
        return self.rows

    def _choose_batch(self) -> list[tuple[int, int]]:
        """Return (label, attempt) of the next drafts: the classes that lack rows, in turn."""
        limit = self.settings.attempts * self.settings.keep
        next_attempt = list(self.num_attempts)
        chosen: list[tuple[int, int]] = []
        while len(chosen) < self.settings.sample.batch_size:
            before = len(chosen)
            for label, needed in enumerate(self.screen.needed):
                if needed > 0 and next_attempt[label] < limit and len(chosen) < self.settings.sample.batch_size:
                    chosen.append((label, next_attempt[label]))
                    next_attempt[label] += 1
            if len(chosen) == before:
                break
        return chosen

    def _sample(self, chosen: Sequence[tuple[int, int]]) -> list[JsonObject]:
        from submillion.augment.sample import sample_rows

        beginnings = [self.beginnings[label][attempt % len(self.beginnings[label])] for label, attempt in chosen]
        pairs = zip(chosen, beginnings, strict=True)
        starts = [self._make_start(label, attempt, ids) for (label, attempt), (_, ids) in pairs]
        sampled = sample_rows(self.language_model, starts, self.settings.sample)
        return [
            {
                "label": label,
                "attempt": attempt,
                "prompt": prompt,
                "seed": start.seed,
                "max_tokens": start.num_tokens,
                "num_tokens": len(drawn),
                "ended": ended,
                "text": self._write_text(ids, drawn),
            }
            for (label, attempt), (prompt, ids), start, (drawn, ended) in zip(
                chosen, beginnings, starts, sampled, strict=True
            )
        ]

    def _make_start(self, label: int, attempt: int, ids: Sequence[int]) -> Start:
        from submillion.augment.sample import Start, draw_uniform
        from submillion.model.dropout import mix_64

        seed = mix_64(mix_64(self.settings.seed) ^ mix_64((label << 40) + attempt)) >> 1
        shortest, longest = self.settings.sample.min_tokens, self.settings.sample.max_tokens
        # No token of the row has position -1, so the length is drawn independently of the tokens.
        length = shortest + int(draw_uniform(seed, -1) * (longest - shortest + 1))
        return Start([self.language_model.start_id, *ids], seed, length)

    def _write_text(self, ids: list[int], drawn: list[int]) -> str:
        whole = self.language_model.decode([*ids, *drawn])
        if self.material.prompts is None or not self.settings.sample.keep_prompt:
            whole = whole[len(self.language_model.decode(ids)) :]
        return clean_text(whole, self.material.clean)

    def _take(self, entry: JsonObject) -> None:
        """Count a draft that was judged, and make a row of it if it was kept."""
        label = entry["label"]
        self.num_attempts[label] += 1
        self.reasons[label][entry["reason"] or "kept"] += 1
        if entry["reason"] is not None:
            return
        details = {key: entry[key] for key in ("prompt", "attempt", "max_tokens", "num_tokens", "ended")}
        provenance = describe_origin(
            "generate",
            self.origin.settings,
            seed=entry["seed"],
            **details,
            mode="conditional" if self.settings.conditional else "prompts",
            model=self.origin.model,
            model_sha256=self.origin.model_sha256,
            junk=self.language_model.is_junk,
            classifier_sha256=self.origin.classifier,
            classifier_probability=entry["probability"],
        )
        row_id = f"generate-{self._digest}-{label}-{entry['attempt']}"
        self.rows.append(SyntheticRow(row_id, entry["text"], self.names[label], provenance))


def _count(generation: _Generation, material: Material, settings: GenerateSettings) -> JsonObject:
    def describe(reasons: Counter[str]) -> JsonObject:
        return {
            "num_drafts": reasons.total(),
            "num_kept": reasons["kept"],
            "dropped": {reason: reasons[reason] for reason in REASONS},
        }

    classes = dict(zip(material.labels, map(describe, generation.reasons), strict=True))
    return {
        **describe(sum(generation.reasons, Counter[str]())),
        "num_wanted": settings.keep * len(material.labels),
        "complete": all(entry["num_kept"] == settings.keep for entry in classes.values()),
        "junk": generation.language_model.is_junk,
        "classes": classes,
    }


def _describe_classifier(inputs: Inputs, digest: str | None) -> dict[str, str] | None:
    return None if digest is None else {"run": str(inputs.classifier), "sha256": digest}


def _explain_nothing_kept(counts: JsonObject, work: WorkDir, settings: GenerateSettings) -> DataError:
    dropped = ", ".join(_list_reasons(counts["dropped"]))
    again = (
        f" To sample it again: --model {work.path / MODEL_PATH} --set finetune.epochs=0" if settings.is_tuned else ""
    )
    return DataError(
        f"none of {counts['num_drafts']:,} drafts was kept: {dropped}",
        where=str(work.drafts),
        hint="The file has every draft and the reason why it was dropped. Loosen the screen, train the language model "
        f"longer, or give it better prompts.{again}",
    )


def _list_reasons(dropped: dict[str, int]) -> Iterator[str]:
    for reason, count in dropped.items():
        if count:
            yield f"{count:,} {reason.replace('_', ' ')}"
