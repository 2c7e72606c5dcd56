"""A connection that drops costs seconds, not the run; nothing found is lost and nothing is left."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from mcdoctor.kube.agent import NoVantage, Opened
from mcdoctor.kube.ephemeral import Place, blind
from mcdoctor.kube.lasting import Lasting, lasting, once_back
from mcdoctor.models.facts import Blind, Fact, ResolvConf
from mcdoctor.models.requests import ProbeRequest, ReadResolvConf, SendRequest
from mcdoctor.models.vantage import Vantage

PLACE = Place("a", "shop", "frontend", node="n1")
HERE = Vantage(cluster="a", namespace="shop", pod="frontend")


def fact(server: str) -> ResolvConf:
    return ResolvConf(at=datetime.now(UTC), vantage=HERE, nameservers=(server,), search=(), options=())


@dataclass
class Scripted:
    """Answers each request with `answer`; from request number `drop` on it is lost, which the last of `seen` precedes."""

    answer: Fact
    drop: int | None = None
    seen: tuple[Fact, ...] = ()
    vantage: Vantage = HERE
    lost: str | None = None
    asked: list[ProbeRequest] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        self.asked.append(request)
        self.budgets.append(budget)
        owed = Blind(at=datetime.now(UTC), vantage=HERE, wanted="resolv_conf", about="x", reason="the prober ended")
        if self.lost:
            return (owed,)
        if self.drop is not None and len(self.asked) > self.drop:
            self.lost = owed.reason
            return (*self.seen, owed)
        return (self.answer,)

    def close(self) -> None:
        self.lost = self.lost or "the prober was closed"


def opened(prober: Scripted, name: str) -> Opened:
    return Opened(prober, lambda: (f"{name} has ended",))


def test_the_run_goes_on_with_another_and_keeps_what_the_first_had_found() -> None:
    first, second = Scripted(fact("one"), drop=1, seen=(fact("half"),)), Scripted(fact("two"))
    told: list[str] = []
    kept = lasting(opened(first, "first"), lambda: opened(second, "second"), told.append)
    servers = [
        [f.nameservers for f in kept.prober.run(ReadResolvConf(), budget=5) if isinstance(f, ResolvConf)]
        for _ in range(3)
    ]
    assert servers == [[("one",)], [("half",), ("two",)], [("two",)]]
    assert len(told) == 1 and "the prober ended" in told[0] and "another one takes its place" in told[0]
    assert 4 < second.budgets[0] <= 5
    assert kept.close() == ("first has ended", "second has ended")


def test_requests_side_by_side_wait_for_the_same_one() -> None:
    first, second = Scripted(fact("one"), drop=0), Scripted(fact("two"))
    starts: list[float] = []

    def again() -> Opened:
        starts.append(time.monotonic())
        time.sleep(0.2)
        return opened(second, "second")

    prober = Lasting(opened(first, "first"), again, lambda _line: None)
    facts: list[Fact] = []
    threads = [threading.Thread(target=lambda: facts.extend(prober.run(ReadResolvConf(), budget=5))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(starts) == 1 and [type(f) for f in facts] == [ResolvConf] * 6


def test_it_is_done_once() -> None:
    first, second = Scripted(fact("one"), drop=0), Scripted(fact("two"), drop=1)
    left = [opened(second, "second")]
    prober = Lasting(opened(first, "first"), left.pop, lambda _line: None)
    assert isinstance(prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)
    for _ in range(2):
        (owed,) = prober.run(ReadResolvConf(), budget=5)
        assert isinstance(owed, Blind) and owed.reason.endswith("lost a second time, and none is started any more")


def test_what_prevents_another_one_is_the_reason() -> None:
    def again() -> Opened:
        raise NoVantage(blind(PLACE, "an ephemeral container", "no connection to 10.0.0.1:6443"))

    told: list[str] = []
    prober = Lasting(opened(Scripted(fact("one"), drop=0, seen=(fact("half"),)), "first"), again, told.append)
    half, owed = prober.run(ReadResolvConf(), budget=5)
    assert isinstance(half, ResolvConf) and isinstance(owed, Blind)
    assert owed.reason == "the prober ended; another one could not be started: no connection to 10.0.0.1:6443"
    assert told[1].endswith("no connection to 10.0.0.1:6443. What was found so far is kept.")
    (later,) = prober.run(ReadResolvConf(), budget=5)
    assert isinstance(later, Blind) and "no connection to 10.0.0.1:6443" in later.reason


def test_nobody_waits_beyond_the_budget() -> None:
    gone = threading.Event()

    def again() -> Opened:
        gone.wait(10)
        return opened(Scripted(fact("two")), "second")

    prober = Lasting(opened(Scripted(fact("one"), drop=0), "first"), again, lambda _line: None)
    started = time.monotonic()
    (owed,) = prober.run(ReadResolvConf(), budget=0.2)
    assert time.monotonic() - started < 2
    assert isinstance(owed, Blind) and "not there in time" in owed.reason
    gone.set()
    assert isinstance(prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)


@pytest.mark.parametrize(("method", "sent"), [("GET", 1), ("post", 0), ("DELETE", 0)])
def test_what_may_change_something_is_not_sent_twice(method: str, sent: int) -> None:
    second = Scripted(fact("two"))
    first = opened(Scripted(fact("one"), drop=0), "first")
    prober = Lasting(first, lambda: opened(second, "second"), lambda _line: None)
    facts = prober.run(SendRequest(url="http://backend/", method=method), budget=5)
    assert len(second.asked) == sent
    if not sent:
        assert isinstance(facts[0], Blind) and facts[0].reason.endswith(f"a {method} is not sent twice")
    assert isinstance(prober.run(ReadResolvConf(), budget=5)[0], ResolvConf)  # the others go on


def test_one_that_comes_up_after_the_end_is_ended_too() -> None:
    gone = threading.Event()
    ended: list[str] = []

    def end() -> tuple[str, ...]:
        ended.append("second")
        return ("second has ended",)

    def again() -> Opened:
        gone.wait(10)
        return Opened(Scripted(fact("two")), end)

    kept = lasting(opened(Scripted(fact("one"), drop=0), "first"), again, lambda _line: None)
    kept.prober.run(ReadResolvConf(), budget=0.1)
    threading.Timer(0.3, gone.set).start()
    assert kept.close() == ("first has ended", "second has ended") and ended == ["second"]
    (owed,) = kept.prober.run(ReadResolvConf(), budget=5)
    assert isinstance(owed, Blind)


def test_a_blind_of_a_prober_that_is_there_starts_nothing() -> None:
    class Unable(Scripted):
        def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
            return (Blind(at=datetime.now(UTC), vantage=HERE, wanted="trace", about="x", reason="no raw sockets"),)

    first = opened(Unable(fact("one")), "first")
    prober = Lasting(first, lambda: pytest.fail("started"), pytest.fail)
    assert prober.run(ReadResolvConf(), budget=5)[0].reason == "no raw sockets"  # type: ignore[attr-defined]


def test_an_api_server_that_went_away_with_the_connection_is_waited_for(fake: Any, reply: Any) -> None:
    begun = time.monotonic()
    fake.route(
        "/api/v1/namespaces/shop/pods/frontend",
        lambda _request: reply() if time.monotonic() > begun + 1.2 else reply(200, b"{}", cut=0),
    )
    api = fake.connect()
    assert once_back(api, PLACE, lambda: opened(Scripted(fact("two")), "second")).close() == ("second has ended",)
    assert 1.0 < time.monotonic() - begun < 10
