"""Texts and tables that Python callers hand over instead of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from submillion.config import RunConfig
from submillion.errors import ConfigError, DataError, SubmillionError
from submillion.files import write_bytes

_ROWS = "rows.parquet"
_WANTED = "Give a list, array or Series of texts, or one single text."


def list_texts(texts: object) -> list[str]:
    """Return texts as a list; one single text is a list of one.

    Args:
        texts: A text, or anything that yields texts: a list, tuple, array, Series or generator.

    Raises:
        DataError: Anything else, or an element that is no text, with its position.
    """
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, (bytes, bytearray, Mapping)) or is_table(texts):
        hint = "Decode the bytes first." if isinstance(texts, (bytes, bytearray)) else "Give one of its columns."
        raise DataError(f"is no list of texts but a {type(texts).__name__}", where="texts", hint=f"{_WANTED} {hint}")
    try:
        given = list(texts) if isinstance(texts, Iterable) else None
    except TypeError:  # an array without dimensions
        given = None
    if given is None:
        raise DataError(f"{texts!r:.60} ({type(texts).__name__}) is no list of texts", where="texts", hint=_WANTED)
    return [check_text(text, f"texts[{position}]") for position, text in enumerate(given)]


def check_text(text: object, where: str) -> str:
    """Return a text that can be encoded.

    Raises:
        DataError: It is no text, or holds half a character.
    """
    if not isinstance(text, str):
        raise DataError(
            f"{text!r:.60} ({type(text).__name__}) is no text",
            where=where,
            hint="Leave missing values out, or put an empty text in their place.",
        )
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(
            "the text holds half a character (a surrogate)",
            where=where,
            hint="It was made from bytes that are not UTF-8; decode them with the encoding that they are in.",
        )
    return str(text)


def is_table(data: object) -> bool:
    """Return whether a value is a table of columns, such as a DataFrame of pandas or polars, or one of pyarrow."""
    is_frame = hasattr(data, "columns") and (hasattr(data, "__arrow_c_stream__") or hasattr(data, "to_parquet"))
    return is_frame or (hasattr(data, "column_names") and hasattr(data, "__arrow_c_stream__"))


def name_source(data: object) -> str | None:
    """Return a data source as the text that settings hold; a table gets its file from `place_table`.

    Raises:
        ConfigError: It is neither a path, nor the name of a data set, nor a table.
    """
    if data is None or isinstance(data, str):
        return data
    if is_table(data):
        return _ROWS
    path = fspath(data) if isinstance(data, PathLike) else None
    if isinstance(path, str):
        return path
    raise ConfigError(
        f"{data!r:.60} ({type(data).__name__}) is no data source",
        where="data",
        hint="Give a path, hf:owner/name, or a DataFrame.",
    )


def place_table(config: RunConfig, data: object, out: Path) -> RunConfig:
    """Return a configuration whose source is a file with the rows of a table; unchanged where `data` is none.

    The file lies beside the folder that is to be made, as ``<out>.rows.parquet``, and stays there: what is resumed or
    replayed reads the same bytes again.

    Args:
        config: The configuration of a run, a search or a curve.
        data: What `name_source` has taken.
        out: The folder of that run, search or curve.

    Raises:
        ConfigError: The file is there with other rows.
        DataError: The table cannot be written.
        RunError: The disk is full.
    """
    if not is_table(data):
        return config
    path = _name_rows(out)
    content = encode_table(data)
    if path.exists() and path.read_bytes() != content:
        raise ConfigError(
            "holds other rows than the table", where=str(path), hint="Choose another folder with out, or delete it."
        )
    write_bytes(path, content)
    return config.model_copy(update={"data": config.data.model_copy(update={"source": str(path)})})


@contextmanager
def placing_table(config: RunConfig, data: object, out: Path | None, *, is_ours: bool) -> Iterator[RunConfig]:
    """Place a table for what is done within; where that is refused before it wrote anything, nothing stays.

    Args:
        config: The configuration of a run.
        data: What `name_source` has taken.
        out: The folder of the run; None where there is no table.
        is_ours: Whether the folder was made for this run, and goes with it.

    Raises:
        SubmillionError: As `place_table`, and as what is done within.
    """
    if out is None:
        yield config
        return
    path = _name_rows(out)
    was_there = path.exists()
    try:
        yield place_table(config, data, out)
    except SubmillionError:
        if not out.is_dir() or not any(out.iterdir()):
            if not was_there:
                path.unlink(missing_ok=True)
            if is_ours and out.is_dir():
                out.rmdir()
        raise


def _name_rows(out: Path) -> Path:
    return out.parent / f"{out.name}.{_ROWS}"


def encode_table(table: Any) -> bytes:
    """Return a table as the bytes of a parquet file, the same for the same rows; its index is left out.

    Raises:
        DataError: Columns of mixed or unknown types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pandas knows more about its columns than it says through the common interface.
        is_pandas = type(table).__module__.partition(".")[0] == "pandas"
        rows = pa.Table.from_pandas(table, preserve_index=False) if is_pandas else pa.table(table)
        kept = {key: value for key, value in (rows.schema.metadata or {}).items() if key != b"pandas"}
        sink = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata(kept or None), sink)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"the table cannot be read: {error}", where="data", hint="Give every column values of one type."
        ) from None
    return bytes(sink.getvalue())
