"""What is wrong with a policy, and where."""


class PolicyError(Exception):
    """A policy is wrong. The message gives file, line, column, what is wrong and what to do.

    `line` and `column` count from 1; both are 0 where the file as a whole is meant (it cannot be read).
    """

    def __init__(self, source: str, what: str, *, line: int = 0, column: int = 0) -> None:
        where = f"{source}, line {line}, column {column}" if line else source
        super().__init__(f"{where}: {what}")
        self.source = source
        self.what = what
        self.line = line
        self.column = column
