from pathlib import Path

import pytest

from federation_audit.lemmy.shape import V019, V1, Shape, grant_statements

PAGE = (Path(__file__).parents[3] / "docs" / "lemmy.md").read_text()
SECRETS = {
    "email",
    "password_encrypted",
    "private_key",
    "totp_2fa_secret",
    "pictrs_delete_token",
    "name",
    "display_name",
}


@pytest.mark.parametrize("shape", [V019, V1])
def test_the_page_has_the_grants_that_are_needed(shape: Shape) -> None:
    statements = grant_statements(shape.needed(private_messages=True), "fediwarden")
    _, _, after = PAGE.partition(f"For Lemmy {shape.version}:")
    block = after.partition("```sql\n")[2].partition("```")[0]
    assert tuple(block.splitlines()[1:]) == statements


@pytest.mark.parametrize("shape", [V019, V1])
def test_no_secret_and_no_name_is_needed(shape: Shape) -> None:
    needed = shape.needed(private_messages=True).values()
    assert not SECRETS & {column for columns in needed for column in columns}


def test_a_role_with_an_odd_name_is_quoted() -> None:
    (statement,) = grant_statements({"post": ("id",)}, 'a"b')
    assert statement == 'GRANT SELECT (id) ON post TO "a""b";'
