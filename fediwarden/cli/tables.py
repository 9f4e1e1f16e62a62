"""Tables as the commands print them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH_OF_A_PIPE = 240


def make_table(*columns: str) -> "Table":
    """A table without lines; the first column, which names the row, is never cut."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    return table


def print_table(table: "Table") -> None:
    """Print to standard output; what is not a terminal has room for whole rows."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_PIPE)
    console.print(table)
