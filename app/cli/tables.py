"""Tables on a terminal: nothing is cut off. A narrow terminal folds; what goes through a pipe is as wide as it is."""

import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 1000


def table_of(*columns: str) -> Table:
    """An empty table with these columns."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print it."""
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
