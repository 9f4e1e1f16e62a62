"""Verdicts as Parquet, read back by pyarrow."""

import io
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fediwarden.export.errors import ParquetMissing
from fediwarden.export.parquet import ParquetWriter, check_pyarrow, schema_of_verdicts
from fediwarden.export.rows import column_names
from schemas.messages import Verdict
from tests.unit.schemas.samples import SHA256, verdict


def test_rows_have_types_of_their_own() -> None:
    file = io.BytesIO()
    with ParquetWriter(file) as writer:
        writer.write(verdict(), 1_795_000_000_300)
        writer.write(verdict(rules=(), scores={}, models={}, pdq=(), pdq_quality=(), judged_at=1 << 63), 0)
    table = pq.read_table(io.BytesIO(file.getvalue()))
    assert table.schema.names == [*column_names(Verdict), "published_at"]
    assert table.schema.field("judged_at").type == pa.timestamp("ms", tz="UTC")
    first, second = table.to_pylist()
    assert first["sha256"] == SHA256.hex()
    assert first["judged_at"] == datetime(2026, 11, 18, 11, 6, 40, 250_000, UTC)
    assert dict(first["scores"]) == verdict().scores
    assert dict(first["models"]) == verdict().models
    assert first["rules"] == [{"name": "explicit", "decision": "reject", "frame": 1}]
    assert (first["offset"], first["infer_ms"], first["stage"]) == (4_294_967_296, 30.0, "live")
    assert (second["judged_at"], second["scores"], second["pdq"]) == (None, [], [])


def test_many_rows_are_written_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fediwarden.export.parquet._ROW_GROUP", 4)
    file = io.BytesIO()
    with ParquetWriter(file) as writer:
        for number in range(10):
            writer.write(verdict(offset=number), 0)
    found = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert found.num_row_groups == 3
    assert found.read().column("offset").to_pylist() == list(range(10))


def test_no_verdicts_are_a_file_with_columns() -> None:
    file = io.BytesIO()
    with ParquetWriter(file):
        pass
    assert pq.read_table(io.BytesIO(file.getvalue())).schema.names == schema_of_verdicts().names


def test_without_pyarrow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParquetMissing, match=r"python\S* -m pip install 'fediwarden\[parquet\]'"):
        check_pyarrow()
