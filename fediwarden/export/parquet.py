"""Verdicts as Parquet, by pyarrow (the extra ``fediwarden[parquet]``)."""

from typing import IO, TYPE_CHECKING, Any, Final

from fediwarden.export.errors import ParquetMissing
from fediwarden.export.rows import TIMES, column_names, row_of
from schemas.messages import Timings, Verdict

if TYPE_CHECKING:
    import pyarrow

_ROW_GROUP: Final = 10_000
_INT64_MOST: Final = (1 << 63) - 1
_WHOLE: Final = frozenset({"worst_frame", "frame_count", "length", "partition", "offset"})


def check_pyarrow() -> None:
    """Raises `ParquetMissing` where pyarrow is not installed."""
    _import_pyarrow()


class ParquetWriter:
    """Writes verdicts to `file`, ten thousand at a time; also a context manager, whose end completes the file.

    Numbers and times that 64 bits do not hold are null. Raises `ParquetMissing`, or OSError.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._pyarrow = _import_pyarrow()
        import pyarrow.parquet

        self._schema = schema_of_verdicts()
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, verdict: Verdict, published_at: int) -> None:
        """Add one."""
        row: dict[str, Any] = {name: _fit(value) for name, value in row_of(verdict).items()}
        row |= {"received_at": _fit(verdict.received_at), "judged_at": _fit(verdict.judged_at)}
        timings = {f"{name}_ms": each for name, each in verdict.timings}
        row |= timings | {"published_at": _fit(published_at)}
        row["rules"] = [{**rule, "frame": _fit(rule["frame"])} for rule in row["rules"]]
        row["scores"], row["models"] = list(verdict.scores.items()), list(verdict.models.items())
        self._rows.append(row)
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def __enter__(self) -> "ParquetWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


def schema_of_verdicts() -> "pyarrow.Schema":
    """The columns, the same as of JSON lines; times are timestamps in UTC. Raises `ParquetMissing`."""
    pa = _import_pyarrow()
    rule = pa.struct([("name", pa.string()), ("decision", pa.string()), ("frame", pa.int64())])
    special = {
        "rules": pa.list_(rule),
        "scores": pa.map_(pa.string(), pa.float64()),
        "models": pa.map_(pa.string(), pa.string()),
        "pdq": pa.list_(pa.string()),
        "pdq_quality": pa.list_(pa.int64()),
    }
    timings = {f"{name}_ms" for name in Timings.model_fields}

    def type_of(name: str) -> Any:
        if name in special:
            return special[name]
        if name in TIMES:
            return pa.timestamp("ms", tz="UTC")
        if name in timings:
            return pa.float64()
        return pa.int64() if name in _WHOLE else pa.string()

    return pa.schema([(name, type_of(name)) for name in (*column_names(Verdict), "published_at")])


def _fit(value: Any) -> Any:
    return None if isinstance(value, int) and value > _INT64_MOST else value


def _import_pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ParquetMissing from error
    return pyarrow
