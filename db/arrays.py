"""Many rows as arrays, without a Python object of SQLAlchemy's for each of a million."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, exc

_ROWS_AT_ONCE = 500
"""So few that their objects stay in the processor's cache: ten thousand take half as long again."""


def raw_rows(connection: Connection, statement: Select) -> Iterator[list[tuple[Any, ...]]]:
    """Rows as the driver gives them, some at a time."""
    result = connection.execute(statement)  # not as a stream: SQLAlchemy then takes the first rows for itself
    cursor: Any = result.cursor
    driver: Any = connection.dialect.dbapi
    try:
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            yield rows
    except driver.Error as error:
        raise exc.DBAPIError.instance(str(statement), None, error, driver.Error) from error
    result.close()


def int64_column(connection: Connection, statement: Select) -> np.ndarray:
    """The one column of a SELECT: int64 [n]."""
    rows = chain.from_iterable(raw_rows(connection, statement))
    return np.fromiter(chain.from_iterable(rows), np.int64)


def ascending(numbers: np.ndarray) -> np.ndarray:
    """The different ones, sorted. numpy's own `unique` takes ten times as long for a million of them."""
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=numbers[:1] - 1) > 0]
