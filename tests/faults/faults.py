"""The faults: each breaks something in a running rig, lets it be so for a while, and mends what no supervisor would."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults import small_disk
from tests.faults.driver import RATE, Way
from tests.faults.evidence import Numbers
from tests.faults.proxies import Link
from tests.faults.rig import DEADLINE_S, GATEWAYS, SCANNERS, Rig
from tests.faults.scanner import Behaviour
from tests.pict_rs import Mode
from tests.processes import fetch_status

LONGER_THAN_A_SESSION_S = 9.0
TWO_BROKERS_AWAY_S = 20.0
STEERED = 0.97
"""With one of two scanners dead, so many of the images of the next ten seconds are judged in time."""
SMALL_DISK_BYTES = 1 << 20
_MOMENT_S = 3.0
_A_WHILE_S = 6.0


def nothing(rig: Rig) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` returns when everything is mended but for what comes back by itself.

    `prepare` runs before the load begins and `restore` after all is checked. `may_fail`: ways on which a client may get
    no answer, or an error, without a breach of promise. `in_time`: the share of the images of the ten seconds after
    the fault's beginning that must be judged in time. `showed`: whether the numbers say that the fault was there at
    all. `load`: options of the driver. `short`: part of `make test`.
    """

    name: str
    says: str
    inject: Callable[[Rig], None]
    prepare: Callable[[Rig], None] = nothing
    restore: Callable[[Rig], None] = nothing
    may_fail: frozenset[Way] = frozenset()
    in_time: float = 0.0
    showed: Callable[[Numbers], bool] = lambda numbers: True
    load: Mapping[str, Any] = field(default_factory=dict)
    short: bool = False


def leave_alone(rig: Rig) -> None:
    rig.wait(_MOMENT_S)


def _kill(name: str) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        rig.kill(name)
        rig.wait(_MOMENT_S)

    return inject


def kill_enforcer(rig: Rig) -> None:
    _let_images_in(rig)
    rig.wait(1.0)  # it has rejections in hand now
    rig.kill("enforcer")
    rig.wait(_MOMENT_S)


def kill_broker(rig: Rig) -> None:
    _without_nodes(rig, next(number for number in rig.cluster.nodes if number != rig.controller()))


def kill_controller(rig: Rig) -> None:
    _without_nodes(rig, rig.controller())


def kill_two_brokers(rig: Rig) -> None:
    _without_nodes(rig, *list(rig.cluster.nodes)[:2], seconds=TWO_BROKERS_AWAY_S)


def _without_nodes(rig: Rig, *numbers: int, seconds: float = _MOMENT_S) -> None:
    rig.kill_nodes(*numbers)
    rig.wait(seconds)
    rig.start_nodes(*numbers)


def restart_kafka(rig: Rig) -> None:
    rig.cluster.stop()
    rig.wait(_MOMENT_S)
    rig.start_nodes(*rig.cluster.nodes)


def freeze_scanner(rig: Rig) -> None:
    rig.freeze(SCANNERS[0])
    rig.wait(LONGER_THAN_A_SESSION_S)
    rig.thaw(SCANNERS[0])


def _break_model(behaviour: Behaviour) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        rig.behave(behaviour, SCANNERS[0])
        rig.wait(LONGER_THAN_A_SESSION_S)
        rig.behave(Behaviour.OK, SCANNERS[0])

    return inject


def _disturb_network(link: Link, seconds: float) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        rig.link(link)
        rig.wait(seconds)
        rig.link(Link.UP)

    return inject


def fill_spool(rig: Rig) -> None:
    _disturb_network(Link.CUT, _AWAY_S * RATE / rig.rate)(rig)


def start_without_kafka(rig: Rig) -> None:
    rig.link(Link.CUT)
    for name in GATEWAYS:
        rig.stop(name)
        rig.start(name)
        url = f"http://127.0.0.1:{rig.members[name].environment['FEDIWARDEN_GATEWAY__PORT']}"
        rig.wait_until(lambda url=url: fetch_status(f"{url}/healthz") == 200, f"serving: {name}")
        assert fetch_status(f"{url}/readyz") == 503, f"{name} says that it is ready without Kafka"
    rig.wait(_A_WHILE_S)
    rig.link(Link.UP)


def _let_images_in(rig: Rig) -> None:
    """Nobody judges for a while: bad images are stored unjudged, and are rejected right after this."""
    rig.freeze(*SCANNERS)
    rig.wait(DEADLINE_S + 1.0)
    rig.thaw(*SCANNERS)


def scanners_away(rig: Rig) -> None:
    _let_images_in(rig)


def pict_rs_gone(rig: Rig) -> None:
    rig.freeze(*SCANNERS)
    rig.wait(DEADLINE_S + 1.0)
    rig.stop("pict-rs")
    rig.thaw(*SCANNERS)
    rig.wait(_A_WHILE_S)
    rig.start("pict-rs")


def _pict_rs_answers(mode: Mode) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        rig.freeze(*SCANNERS)
        rig.wait(DEADLINE_S + 1.0)
        rig.pict_rs_answers(mode)
        rig.thaw(*SCANNERS)
        rig.wait(_A_WHILE_S)
        rig.pict_rs_answers("well")

    return inject


def spool_bounded(rig: Rig) -> None:
    for name in GATEWAYS:
        rig.restart(name, FEDIWARDEN_GATEWAY__SPOOL_MAX_BYTES=str(SMALL_DISK_BYTES))


def spool_unbounded(rig: Rig) -> None:
    for name in GATEWAYS:
        rig.restart(name, FEDIWARDEN_GATEWAY__SPOOL_MAX_BYTES="")


def disk_small(rig: Rig) -> None:
    for name in GATEWAYS:
        folder = rig.folder / f"disk-of-{name}"
        folder.mkdir(exist_ok=True)
        given = (str(folder), str(SMALL_DISK_BYTES), "fediwarden", "gateway")
        rig.restart(name, "tests.faults.small_disk", given, FEDIWARDEN_GATEWAY__SPOOL_DIR=str(folder))


def disk_large(rig: Rig) -> None:
    for name in GATEWAYS:
        rig.restart(name, "fediwarden", ("gateway",), FEDIWARDEN_GATEWAY__SPOOL_DIR="")


def restart_everything(rig: Rig) -> None:
    """One after the other, each ready before the next is stopped; gateways twice, whose stops clients could notice."""
    for name in (*GATEWAYS, *SCANNERS, "enforcer", *GATEWAYS):
        rig.restart(name)


_BOTH = frozenset(Way)
_UPLOADS = frozenset({Way.UPLOAD})
_MANY_BAD = {"bad_share": 0.3}
_AWAY_S = 15.0


def _some_removed(numbers: Numbers) -> bool:
    return numbers.removed > 0


def _some_refused(numbers: Numbers) -> bool:
    return numbers.refused > 0


def _some_late(numbers: Numbers) -> bool:
    return numbers.judged_late > 0


FAULTS: tuple[Fault, ...] = (
    Fault("none", "nothing is broken", leave_alone),
    Fault("kill-gateway", "kill -9 of one of two gateways", _kill(GATEWAYS[0]), may_fail=_BOTH, short=True),
    Fault("kill-scanner", "kill -9 of one of two scanners", _kill(SCANNERS[0]), in_time=STEERED),
    Fault(
        "kill-enforcer",
        "kill -9 of the enforcer with rejections in hand",
        kill_enforcer,
        showed=_some_removed,
        load=_MANY_BAD,
    ),
    Fault("kill-broker", "kill -9 of a broker that is not the controller", kill_broker),
    Fault("kill-controller", "kill -9 of the active controller, a broker as well", kill_controller, short=True),
    Fault("kill-two-brokers", "kill -9 of two of three brokers, away for 20 s", kill_two_brokers, showed=_some_late),
    Fault("restart-kafka", "all brokers stopped, and started again with their data", restart_kafka, showed=_some_late),
    Fault(
        "freeze-scanner",
        "SIGSTOP of one of two scanners for longer than its session",
        freeze_scanner,
        in_time=STEERED,
        short=True,
    ),
    Fault("scanners-away", "both scanners stand still for longer than the deadline", scanners_away, showed=_some_late),
    Fault("model-raises", "a scanner whose model raises on everything", _break_model(Behaviour.RAISE)),
    Fault("model-nan", "a scanner whose model gives NaN", _break_model(Behaviour.NAN)),
    Fault("model-hangs", "a scanner whose model hangs", _break_model(Behaviour.HANG), in_time=STEERED),
    Fault(
        "poison",
        "images that the model raises on",
        leave_alone,
        showed=lambda numbers: numbers.dead > 0,
        load={"poison_share": 0.1},
    ),
    Fault(
        "cut-network",
        "connections between gateways and Kafka are reset",
        _disturb_network(Link.CUT, _A_WHILE_S),
        showed=_some_late,
    ),
    Fault(
        "silent-network",
        "no byte passes between gateways and Kafka",
        _disturb_network(Link.SILENT, LONGER_THAN_A_SESSION_S),
        showed=_some_late,
    ),
    Fault(
        "start-without-kafka",
        "gateways are restarted while they cannot reach Kafka",
        start_without_kafka,
        may_fail=_BOTH,
        showed=_some_late,
    ),
    Fault(
        "spool-full",
        "Kafka is away until the spool's bound is reached",
        fill_spool,
        prepare=spool_bounded,
        restore=spool_unbounded,
        may_fail=_BOTH,
        showed=_some_refused,
        load={"rich": True},
    ),
    Fault(
        "disk-full",
        "Kafka is away until the disk below the spool is full",
        fill_spool,
        prepare=disk_small,
        restore=disk_large,
        may_fail=_BOTH,
        showed=_some_refused,
        load={"rich": True},
    ),
    Fault(
        "pict-rs-gone",
        "pict-rs is gone when bad images are to be removed",
        pict_rs_gone,
        may_fail=_UPLOADS,
        showed=_some_removed,
        load=_MANY_BAD,
        short=True,
    ),
    *(
        Fault(
            f"pict-rs-{mode}",
            says,
            _pict_rs_answers(mode),
            may_fail=_UPLOADS,
            showed=_some_removed,
            load=_MANY_BAD,
        )
        for mode, says in (
            ("error", "pict-rs answers 500 when bad images are to be removed"),
            ("hang", "pict-rs never answers when bad images are to be removed"),
        )
    ),
    Fault("rolling-restart", "SIGTERM and a new start of every process in turn", restart_everything),
)


def possible(fault: Fault) -> bool:
    """Whether this machine can have it."""
    return fault.prepare is not disk_small or small_disk.possible()


def make_random(seed: int) -> Fault:
    """Three of them, one into the other: the next begins before all has come back from the one before."""
    able = [fault for fault in FAULTS if fault.prepare is nothing and not fault.load.get("poison_share")]
    chosen = random.Random(seed).sample(able, 3)

    def inject(rig: Rig) -> None:
        for fault in chosen:
            fault.inject(rig)

    return Fault(f"random-{seed}", " + ".join(fault.name for fault in chosen), inject, may_fail=_BOTH)
