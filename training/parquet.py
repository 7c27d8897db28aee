"""Parquet as text: what its columns are called, and what its rows say."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import polars as pl

from training.sources import Source
from twotower.errors import DataError

_MAGIC: Final = b"PAR1"
_LATEST: Final = 10**11 - 1  # from there on, seconds would pass for milliseconds


def is_parquet(source: Source) -> bool:
    """Whether a file is one, by how it begins."""
    return source.head().startswith(_MAGIC)


def parquet_columns(source: Source) -> list[str]:
    """The names of all columns. Raises DataError where the file is damaged."""
    with _sound(source):
        return list(pl.read_parquet_schema(io.BytesIO(source.read())))


def parquet_rows(
    source: Source, columns: Sequence[str], separator: str, size: int, *, times: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """Some columns, `size` rows after the other, as text; what is missing is empty.

    In columns of `times` these are seconds since 1970; lists are joined by the separator. Raises
    DataError where the file is damaged, or a column holds what cannot be written as text.
    """
    with _sound(source):
        whole = pl.read_parquet(io.BytesIO(source.read()), columns=list(columns)).select(columns)
    _check_types(source, whole)
    with _sound(source):
        whole = whole.with_columns(
            _dates(column, seconds=name in times)
            for name, column in whole.to_dict().items()
            if column.dtype.is_temporal()
        )
        lists = [name for name, dtype in whole.schema.items() if dtype.is_nested()]
        whole = whole.with_columns(pl.col(lists).cast(pl.List(pl.String)).list.join(separator))
        for rows in whole.iter_slices(size):
            yield rows.select(pl.all().cast(pl.String).fill_null(""))


def _dates(column: pl.Series, *, seconds: bool) -> pl.Series:
    """Dates as text, or as seconds since 1970 where these are no odd ones, which are better told so."""
    column = column.cast(pl.Datetime("ms"))
    text, epoch = column.dt.to_string("%Y-%m-%d %H:%M:%S"), column.dt.epoch("s")
    if not seconds:
        return text
    return epoch.cast(pl.String).zip_with(epoch.is_between(0, _LATEST).fill_null(value=False), text)


def _check_types(source: Source, table: pl.DataFrame) -> None:
    for name, column in table.to_dict().items():
        if not _is_readable(column):
            raise DataError(
                f"{source.name}: column {name} is of type {column.dtype}, allowed are text, numbers, "
                "times and lists of text"
            )


def _is_readable(column: pl.Series) -> bool:
    """Whether every value can be written as text."""
    dtype = column.dtype
    if isinstance(dtype, pl.Binary):  # what some writers make of text
        return all(_is_utf8(value) for value in column.drop_nulls())
    if isinstance(dtype, (pl.List, pl.Array)):
        return isinstance(dtype.inner, (pl.String, pl.Categorical, pl.Enum))
    if dtype.is_nested():
        return False
    return not isinstance(dtype, (pl.Time, pl.Duration, pl.Object))


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _sound(source: Source) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{source.name} is not sound Parquet: {reason}") from error
