"""Children: restarted when they die, stopped in order, never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import structlog

from fediwarden.children import Backoff, Child, ChildMisconfigured, ChildSpec, Stopped, Supervisor, describe_exit
from fediwarden.exits import START_AGAIN

QUICK = Backoff(first_s=0.01, most_s=0.04, reset_after_s=60)


def python(name: str, code: str, **options: object) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-I", "-S", "-c", textwrap.dedent(code)), **options)  # type: ignore[arg-type]


def sleeper(name: str = "sleeper", **options: object) -> ChildSpec:
    return python(name, "import time; time.sleep(600)", **options)


def stubborn(name: str, ready: Path, **options: object) -> ChildSpec:
    return python(
        name,
        f"""
        import pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path({str(ready)!r}).touch()
        time.sleep(600)
        """,
        **options,
    )


def appears(path: Path, within_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not path.exists():
        assert time.monotonic() < give_up_at, f"{path} did not appear"
        time.sleep(0.01)


async def until(condition, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int, within_s: float = 60.0) -> bool:
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (143, "exit code 143 (SIGTERM)"),
        (-9, "ended by SIGKILL"),
        (-200, "ended by signal 200"),
    ],
)
def test_an_exit_is_put_in_words(code, words):
    assert describe_exit(code) == words


def test_a_child_has_its_environment_and_writes_where_it_is_told(tmp_path):
    spec = python(
        "child",
        "import os, sys; print(os.environ['TOLD'], file=sys.stderr); sys.exit(5)",
        environment={"TOLD": "hello"},
        output=tmp_path / "out",
    )
    child = Child(spec)
    assert child.wait(20)
    assert child.exit_code == 5
    assert (tmp_path / "out").read_text() == "hello\n"


def test_a_program_that_does_not_exist_ends_with_127_and_says_so(tmp_path):
    child = Child(ChildSpec("child", ("/no/such/program",), output=tmp_path / "out"))
    assert child.wait(20)
    assert child.exit_code == 127
    assert "/no/such/program" in (tmp_path / "out").read_text()


def test_a_child_is_out_of_reach_of_the_terminals_signals():
    child = Child(sleeper())
    try:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
        assert os.getsid(child.pid) != os.getsid(0)
    finally:
        child.kill()
        assert child.wait(20)


def test_what_a_child_has_started_ends_with_it(tmp_path):
    child = Child(
        python(
            "parent",
            f"""
            import pathlib, subprocess, sys, time
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            part = pathlib.Path({str(tmp_path / "part")!r})
            part.write_text(str(grandchild.pid))
            part.rename({str(tmp_path / "pid")!r})
            time.sleep(600)
            """,
        )
    )
    appears(tmp_path / "pid")
    grandchild = int((tmp_path / "pid").read_text())
    child.stop()
    assert child.exit_code == -signal.SIGTERM
    assert gone(grandchild)


def test_a_child_that_ignores_sigterm_is_killed_when_its_time_is_up(tmp_path):
    child = Child(stubborn("stubborn", tmp_path / "ready", stop_within_s=0.2))
    appears(tmp_path / "ready")
    child.stop()
    assert child.exit_code == -signal.SIGKILL


def test_children_die_with_a_parent_that_is_killed(tmp_path):
    code = f"""
    import pathlib, sys, time
    from fediwarden.children import Child, ChildSpec
    child = Child(ChildSpec("child", (sys.executable, "-c", "import time; time.sleep(600)")))
    part = pathlib.Path({str(tmp_path / "part")!r})
    part.write_text(str(child.pid))
    part.rename({str(tmp_path / "pid")!r})
    time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    appears(tmp_path / "pid")
    child = int((tmp_path / "pid").read_text())
    # The tie is made before the program is: wait until the child has become it.
    give_up_at = time.monotonic() + 20
    while "tether" in " ".join(psutil.Process(child).cmdline()):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert gone(child)


def test_a_child_that_dies_is_restarted_with_growing_pauses(tmp_path):
    tries = tmp_path / "tries"
    spec = python("dying", f"open({str(tries)!r}, 'a').write('x'); raise SystemExit(3)", explain=lambda: "the reason")

    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(spec)
            await until(lambda: children.exits("dying") >= 4)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())
    deaths = [line for line in logs if line["event"] == "child_died"]
    assert [line["restart_in_s"] for line in deaths[:4]] == [0.01, 0.02, 0.04, 0.04]
    assert deaths[0]["how"] == "exit code 3"
    assert deaths[0]["explained"] == "the reason"
    assert len(tries.read_text()) >= 4


def test_a_child_that_ran_long_enough_is_restarted_as_quickly_as_the_first_time():
    async def scenario() -> None:
        async with Supervisor(Backoff(first_s=0.01, most_s=10, reset_after_s=0.0)) as children:
            children.start(python("dying", "raise SystemExit(1)"))
            await until(lambda: children.exits("dying") >= 3)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())
    assert {line["restart_in_s"] for line in logs if line["event"] == "child_died"} == {0.01}


def test_a_child_that_asks_for_it_is_started_again_at_once_and_counts_as_no_failure(tmp_path):
    there = tmp_path / "there"
    code = f"""
        import pathlib, sys, time
        there = pathlib.Path({str(there)!r})
        if not there.exists():
            there.touch()
            sys.exit({START_AGAIN})
        time.sleep(600)
        """

    async def scenario() -> None:
        async with Supervisor(Backoff(first_s=600, most_s=600)) as children:
            children.start(python("changing", code))
            first = children.running()["changing"]
            await until(lambda: children.running().get("changing", first) != first)
            assert children.exits("changing") == 0
            assert not children.stopping

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())
    assert "child_starts_again" in [line["event"] for line in logs]
    assert "child_died" not in [line["event"] for line in logs]


def test_a_killed_child_comes_back_under_another_process_id():
    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(sleeper("one"))
            first = children.running()["one"]
            os.kill(first, signal.SIGKILL)
            await until(lambda: children.running().get("one", first) != first)
            second = children.running()["one"]
            assert psutil.pid_exists(second)
        assert children.running() == {}
        assert gone(first) and gone(second)

    asyncio.run(scenario())


def test_a_misconfigured_child_is_not_restarted_and_ends_the_whole():
    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(sleeper("fine"))
            children.start(python("wrong", "raise SystemExit(78)"))
            with pytest.raises(ChildMisconfigured, match="wrong"):
                await children.run()
            assert children.exits("wrong") == 1
        assert children.running() == {}

    asyncio.run(scenario())


def test_a_misconfigured_child_that_the_others_can_do_without_is_tried_again_and_they_go_on(tmp_path):
    mended = tmp_path / "mended"
    code = f"import pathlib, sys, time; pathlib.Path({str(mended)!r}).exists() or sys.exit(78); time.sleep(600)"

    async def scenario() -> None:
        async with Supervisor(Backoff(first_s=600, most_s=600, misconfigured_s=0.05)) as children:
            children.start(sleeper("fine"))
            children.start(python("aside", code, essential=False))
            await until(lambda: children.exits("aside") >= 2)
            mended.touch()
            await until(lambda: "aside" in children.running())
            assert not children.stopping
            assert set(children.running()) == {"fine", "aside"}

    asyncio.run(scenario())


def test_a_child_stands_back_for_the_others_as_far_as_it_is_told():
    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(sleeper("front"), sleeper("back", niceness=5))
            nice = {name: psutil.Process(pid) for name, pid in children.running().items()}
            await until(lambda: nice["back"].nice() == nice["front"].nice() + 5)
            group = Path(f"/proc/{nice['back'].pid}/autogroup")
            if group.exists():  # else niceness alone says it
                await until(lambda: group.read_text().endswith("nice 5\n"))

    asyncio.run(scenario())


def test_what_is_waited_for_is_given_up_when_a_child_is_misconfigured():
    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(python("wrong", "raise SystemExit(78)"))
            with pytest.raises(ChildMisconfigured):
                await children.until(asyncio.sleep(600))

    asyncio.run(scenario())


def test_waiting_returns_what_was_waited_for_and_hands_on_its_errors():
    async def give() -> int:
        return 5

    async def fail() -> None:
        raise LookupError("not there")

    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            assert await children.until(give()) == 5
            with pytest.raises(LookupError):
                await children.until(fail())
            asyncio.get_running_loop().call_later(0.01, children.request_stop)
            with pytest.raises(Stopped):
                await children.until(asyncio.sleep(600))

    asyncio.run(scenario())


def test_those_started_last_are_stopped_first_and_each_group_as_one(tmp_path):
    def writer(name: str) -> ChildSpec:
        return python(
            name,
            f"""
            import pathlib, signal, sys, time
            def leave(*_):
                time.sleep(0.1)
                with open({str(tmp_path / "order")!r}, "a") as order:
                    order.write({name!r} + " ")
                sys.exit(0)
            signal.signal(signal.SIGTERM, leave)
            pathlib.Path({str(tmp_path / name)!r}).touch()
            time.sleep(600)
            """,
        )

    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(writer("first"))
            children.start(writer("second"), writer("third"))
            children.start(writer("last"))
            await until(lambda: all((tmp_path / name).exists() for name in ("first", "second", "third", "last")))

    asyncio.run(scenario())
    order = (tmp_path / "order").read_text().split()
    assert order[0] == "last"
    assert set(order[1:3]) == {"second", "third"}
    assert order[3] == "first"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(number):
    async def scenario() -> dict[str, int]:
        async with Supervisor(QUICK) as children:
            with children.signals():
                children.start(sleeper("one"), sleeper("two"))
                started = children.running()
                os.kill(os.getpid(), number)
                await children.run()
                await children.stop()
        return started

    started = asyncio.run(scenario())
    assert len(started) == 2
    assert all(gone(pid) for pid in started.values())


def test_a_second_signal_kills_those_that_do_not_leave(tmp_path):
    async def scenario() -> int:
        async with Supervisor(QUICK) as children:
            with children.signals():
                children.start(stubborn("stubborn", tmp_path / "ready", stop_within_s=600))
                pid = children.running()["stubborn"]
                await until((tmp_path / "ready").exists)
                os.kill(os.getpid(), signal.SIGINT)
                await children.run()
                asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
                async with asyncio.timeout(20):
                    await children.stop()
        return pid

    assert gone(asyncio.run(scenario()))


def test_a_child_that_is_being_waited_for_to_restart_is_not_started_after_the_stop():
    async def scenario() -> None:
        children = Supervisor(Backoff(first_s=600, most_s=600))
        children.start(python("dying", "raise SystemExit(1)"))
        await until(lambda: children.exits("dying") == 1)
        async with asyncio.timeout(60):
            await children.stop()
        assert children.exits("dying") == 1
        assert children.running() == {}

    asyncio.run(scenario())


def test_a_restart_that_fails_is_tried_again(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    spec = python("dying", "raise SystemExit(1)", output=folder / "out")

    async def scenario() -> None:
        async with Supervisor(QUICK) as children:
            children.start(spec)
            (folder / "out").unlink()
            folder.rename(tmp_path / "elsewhere")
            await until(lambda: any(line["event"] == "child_not_started" for line in logs))
            (tmp_path / "elsewhere").rename(folder)
            await until(lambda: children.exits("dying") >= 2)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())
