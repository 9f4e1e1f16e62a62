from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, exc, select, update

from federation_audit.accounts import attempts, sessions, users
from federation_audit.accounts.actions import Actor
from federation_audit.accounts.attempts import ACCOUNT_MOST, NETWORK_MOST, WINDOW_MS
from federation_audit.accounts.database import Database
from federation_audit.accounts.errors import (
    LastAdmin,
    NameRefused,
    PasswordRefused,
    PasswordWrong,
    TooManyAttempts,
    UserUnknown,
)
from federation_audit.accounts.networks import network_of
from federation_audit.accounts.passwords import Passwords, check_password, make_password
from federation_audit.accounts.roles import Role
from federation_audit.accounts.sessions import Sessions
from federation_audit.accounts.tables import ACTIONS, ATTEMPTS, SESSIONS, USERS
from federation_audit.accounts.users import Users
from federation_audit.store.errors import StoreRefused
from federation_audit.store.migrating import open_store
from tests.pages import TEST, WORDS, cheap_passwords

OTHER_WORDS = "quite other words now"
HOUR = 3_600_000
NET = "192.0.2.0/24"


class Clock:
    """The time that accounts see."""

    def __init__(self) -> None:
        self.now = 1_764_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sessions, "now_ms", clock)
    monkeypatch.setattr(users, "now_ms", clock)
    return clock


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    return cheap_passwords()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}") as store:
        yield store


@pytest.fixture
def people(database: Database, passwords: Passwords) -> Users:
    people = Users(database, passwords)
    people.add("ada", Role.ADMIN, WORDS, by=TEST, must_change=False)
    return people


@pytest.fixture
def door(database: Database, passwords: Passwords, people: Users, clock: Clock) -> Sessions:
    return Sessions(database, passwords, idle_ms=HOUR, most_ms=12 * HOUR)


def log_of(database: Database) -> list[tuple[str, str, str]]:
    with database.reading() as connection:
        rows = connection.execute(select(ACTIONS).order_by(ACTIONS.c.id))
        return [(row.who, row.what, row.about) for row in rows]


def test_a_role_may_all_that_the_ones_before_it_may() -> None:
    assert Role.ADMIN.includes(Role.VIEWER) and Role.REVIEWER.includes(Role.REVIEWER)
    assert not Role.REVIEWER.includes(Role.ADMIN)


@pytest.mark.parametrize("name", ["", "Ada", "a b", "ада", "a" * 65, "-a", "a/b", "a\n"])
def test_a_name_that_could_be_taken_for_another_is_refused(people: Users, name: str) -> None:
    if name == "a\n":
        assert users.check_name(name) == "a"
        return
    with pytest.raises(NameRefused):
        people.add(name, Role.VIEWER, WORDS, by=TEST, must_change=False)


@pytest.mark.parametrize("password", ["short", "a" * 300, "aaaaaaaaaaaaaaaa", "ada-lovelace-ada-lovelace-"])
def test_a_password_that_is_soon_guessed_is_refused(password: str) -> None:
    with pytest.raises(PasswordRefused):
        check_password(password, name="ada-lovelace")


def test_made_passwords_are_accepted_and_differ() -> None:
    made = {make_password() for _ in range(20)}
    assert len(made) == 20
    for each in made:
        check_password(each, name="ada")


def test_the_ways_to_type_an_accent_are_one_password(passwords: Passwords) -> None:
    assert passwords.verify(passwords.hash("caf\u00e9 au lait, please"), "cafe\u0301 au lait, please")


def test_a_taken_name_is_refused_and_a_removed_one_comes_back_as_the_same_account(
    people: Users, database: Database
) -> None:
    first = people.add("bob", Role.VIEWER, WORDS, by=TEST, must_change=True)
    with pytest.raises(NameRefused):
        people.add("bob", Role.VIEWER, WORDS, by=TEST, must_change=True)
    people.remove("bob", by=TEST)
    with pytest.raises(UserUnknown):
        people.find("bob")
    again = people.add("bob", Role.REVIEWER, OTHER_WORDS, by=TEST, must_change=True)
    assert (again.id, again.role, again.must_change) == (first.id, Role.REVIEWER, True)
    assert [what for _, what, about in log_of(database) if about == "bob"] == [
        "user added",
        "user removed",
        "user added",
    ]


def test_the_last_admin_is_kept(people: Users) -> None:
    with pytest.raises(LastAdmin):
        people.remove("ada", by=TEST)
    with pytest.raises(LastAdmin):
        people.set_role("ada", Role.VIEWER, by=TEST)
    people.add("eve", Role.ADMIN, WORDS, by=TEST, must_change=False)
    people.set_role("ada", Role.VIEWER, by=TEST)
    assert people.find("ada").role is Role.VIEWER


def test_two_admins_who_remove_each_other_at_once_leave_one(people: Users) -> None:
    people.add("eve", Role.ADMIN, WORDS, by=TEST, must_change=False)

    def remove(name: str) -> bool:
        try:
            people.remove(name, by=TEST)
        except LastAdmin:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(remove, ("ada", "eve"))) == [False, True]


def test_whoever_logs_in_is_found_by_the_token_and_the_database_does_not_have_it(
    door: Sessions, database: Database
) -> None:
    token = door.log_in("ada", WORDS, network=NET)
    found = door.find(token)
    assert found is not None and found.user.name == "ada"
    with database.reading() as connection:
        assert token not in str(connection.execute(select(SESSIONS)).all())
    assert door.find(token + "x") is None
    assert ("ada", "logged in", "") in log_of(database)


def test_a_session_ends_when_idle_when_old_and_by_logging_out(door: Sessions, clock: Clock) -> None:
    idle = door.log_in("ada", WORDS, network=NET)
    clock.now += HOUR
    assert door.find(idle) is None
    used = door.log_in("ada", WORDS, network=NET)
    for _ in range(23):
        clock.now += HOUR // 2
        assert door.find(used) is not None
    clock.now += HOUR // 2
    assert door.find(used) is None
    left = door.log_in("ada", WORDS, network=NET)
    session = door.find(left)
    assert session is not None
    door.end(session, by=Actor("ada"))
    assert door.find(left) is None


def test_a_new_password_and_a_removal_end_sessions(door: Sessions, people: Users) -> None:
    people.add("bob", Role.VIEWER, WORDS, by=TEST, must_change=False)
    kept, other = (door.log_in("bob", WORDS, network=NET) for _ in range(2))
    session = door.find(kept)
    assert session is not None
    people.set_password("bob", OTHER_WORDS, by=Actor("bob"), must_change=False, keep_session=session.key)
    assert door.find(kept) is not None and door.find(other) is None
    people.remove("bob", by=TEST)
    assert door.find(kept) is None
    with pytest.raises(PasswordWrong):
        door.log_in("bob", OTHER_WORDS, network=NET)


def test_an_unknown_name_costs_a_hash_too_and_reads_the_same(
    door: Sessions, passwords: Passwords, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str | None] = []
    verify = passwords.verify
    monkeypatch.setattr(passwords, "verify", lambda kept, word: (verified.append(kept), verify(kept, word))[1])
    said = set()
    for name in ("ada", "hunter2 is my password"):
        with pytest.raises(PasswordWrong) as caught:
            door.log_in(name, OTHER_WORDS, network=NET)
        said.add(str(caught.value))
    assert len(said) == 1 and len(verified) == 2 and verified[1] is None
    assert passwords.verify(None, WORDS) is False
    # What was typed in the name's field may be a password: it is kept nowhere.
    with database.reading() as connection:
        assert "hunter2" not in str([connection.execute(select(table)).all() for table in (ACTIONS, ATTEMPTS)])


def test_wrong_passwords_hold_back_the_account_from_everywhere_and_only_for_a_while(
    door: Sessions, clock: Clock, database: Database
) -> None:
    for number in range(ACCOUNT_MOST):
        with pytest.raises(PasswordWrong):
            door.log_in("ada", OTHER_WORDS, network=f"192.0.{number}.0/24")
    with pytest.raises(TooManyAttempts) as caught:
        door.log_in("ada", WORDS, network=NET)
    assert 0 < caught.value.retry_s <= WINDOW_MS // 1000
    assert ("", "logins held back", "ada") in log_of(database)
    clock.now += caught.value.retry_s * 1000
    assert door.log_in("ada", WORDS, network=NET)


def test_wrong_passwords_hold_back_the_network_whatever_the_name(door: Sessions, people: Users) -> None:
    for number in range(NETWORK_MOST):
        with pytest.raises(PasswordWrong):
            door.log_in(f"guess{number}", OTHER_WORDS, network=NET)
    with pytest.raises(TooManyAttempts):
        door.log_in("ada", WORDS, network=NET)
    assert door.log_in("ada", WORDS, network="198.51.100.0/24")


def test_a_new_password_by_an_admin_lets_the_owner_in_again(door: Sessions, people: Users) -> None:
    for _ in range(ACCOUNT_MOST):
        with pytest.raises(PasswordWrong):
            door.log_in("ada", "wrong wrong wrong", network="203.0.113.0/24")
    people.set_password("ada", OTHER_WORDS, by=TEST, must_change=True)
    assert door.log_in("ada", OTHER_WORDS, network=NET)


def test_right_passwords_do_not_count(door: Sessions) -> None:
    for _ in range(ACCOUNT_MOST + 2):
        door.log_in("ada", WORDS, network=NET)


def test_attempts_at_the_same_moment_all_count(door: Sessions, database: Database) -> None:
    def guess(number: int) -> str:
        try:
            door.log_in("ada", f"wrong password {number}", network=NET)
        except (PasswordWrong, TooManyAttempts) as error:
            return type(error).__name__
        return "in"

    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(guess, range(24)))
    assert ends.count("PasswordWrong") <= ACCOUNT_MOST
    assert ends.count("in") == 0


def test_a_hash_of_other_parameters_is_made_anew_at_the_login(database: Database, people: Users, clock: Clock) -> None:
    stronger = Passwords(time_cost=2, memory_cost=16, parallelism=1)
    Sessions(database, stronger, idle_ms=HOUR, most_ms=HOUR).log_in("ada", WORDS, network=NET)
    with database.reading() as connection:
        kept = connection.execute(select(USERS.c.password_hash)).scalar_one()
    assert "m=16,t=2" in kept and not stronger.outdated(kept)
    assert stronger.verify(kept, WORDS)


def test_the_log_cannot_be_changed(people: Users, database: Database) -> None:
    for statement in (update(ACTIONS).values(who="somebody else"), delete(ACTIONS)):
        with pytest.raises(exc.DBAPIError, match="appended"), database.writing() as connection:
            connection.execute(statement)
    assert log_of(database)


def test_an_action_that_fails_leaves_no_entry(people: Users, database: Database) -> None:
    before = log_of(database)
    with pytest.raises(NameRefused):
        people.add("ada", Role.VIEWER, WORDS, by=TEST, must_change=False)
    assert log_of(database) == before


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_clients_are_known_by_their_network(address: str | None, network: str) -> None:
    assert network_of(address) == network


def test_the_key_of_an_unknown_account_tells_16_bits() -> None:
    assert len(attempts.account_key(None, "anything")) == len("nobody ffff")


def test_a_database_that_cannot_be_used_says_which_setting() -> None:
    with pytest.raises(StoreRefused, match=r"audit\.database"):
        open_store("sqlite:////proc/no/such/audit.sqlite")
