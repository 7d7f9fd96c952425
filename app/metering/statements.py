"""Statements that every request executes: made once, and on SQLite given to the driver as they are.

There SQLAlchemy's way to a row takes five times as long as SQLite itself, on a thread whose every millisecond the
tokens wait for: it shares the interpreter with the streams, and the cores with the engine.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Executable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

Given = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """A statement in SQLite's words."""

    text: str
    names: Sequence[str]
    """Of its parameters, in their order."""
    own: Given
    """Those that it brings itself."""
    given_count: int
    writers: Mapping[str, Callable[[Any], Any]]
    """How values are written whose type is none of SQLite's."""

    @classmethod
    def of(cls, statement: Executable, connection: Connection, given: Given) -> "Written":
        """`statement` with parameters of these names."""
        clause: Any = statement  # SQLAlchemy leaves its compilers' types open
        compiled = clause.compile(dialect=connection.dialect, column_keys=sorted(given))
        writers: dict[str, Callable[[Any], Any]] = {}
        for name, bind in compiled.binds.items():
            writer = bind.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
            if writer is not None:
                writers[name] = writer
        own = {name: value for name, value in compiled.params.items() if name not in given}
        return cls(compiled.string, compiled.positiontup or (), own, len(given), writers)

    def values(self, given: Given) -> tuple[Any, ...]:
        """What stands for the question marks. Raises KeyError when one is missing."""
        assert len(given) == self.given_count, "a statement is given the same names each time. This is a bug."
        all_of_it = {**self.own, **given}
        for name, writer in self.writers.items():
            all_of_it[name] = writer(all_of_it[name])
        return tuple([all_of_it[name] for name in self.names])


class Statement:
    """Executed with the same names each time. Rows have the columns' own values as the driver tells them."""

    def __init__(self, made: Executable | Callable[[Any], Executable], *, table: Any = None) -> None:
        """A statement, or one that is made of an insert into `table` that knows ON CONFLICT."""
        self._made = {
            name: made(dialect.insert(table)) if callable(made) else made
            for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
        }
        self._written: Written | None = None

    def rows(self, connection: Connection, given: Given) -> Sequence[Sequence[Any]]:
        """Execute it; what it returns."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._made[connection.dialect.name], given).all()
        return self._run(connection, given)[0]

    def count(self, connection: Connection, given: Given) -> int:
        """Execute it; how many rows it changed."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._made[connection.dialect.name], given).rowcount
        return self._run(connection, given)[1]

    def _run(self, connection: Connection, given: Given) -> tuple[list[tuple[Any, ...]], int]:
        """The rows that come, and how many were changed. Raises what SQLAlchemy would."""
        if self._written is None:
            self._written = Written.of(self._made["sqlite"], connection, given)
        values = self._written.values(given)
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        try:
            cursor = driver.execute(self._written.text, values)
            return cursor.fetchall(), cursor.rowcount
        except sqlite3.Error as cause:
            raise DBAPIError.instance(self._written.text, values, cause, sqlite3.Error) from cause
