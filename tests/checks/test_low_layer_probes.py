"""What the rooms tcp, mtu and request send, against a prober that answers from a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mcdoctor.check import Options, World
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import DnsAnswer, DnsRecord, Fact, HttpRequest, HttpSample, HttpSeries, PathMtu, TcpConnect
from mcdoctor.models.facts import SizeResult as Size
from mcdoctor.models.flow import Backend, Flow, Layer, Pod, Rung, Workload
from mcdoctor.models.ids import Symptom
from mcdoctor.models.requests import (
    ConnectTcp,
    DetectCapture,
    MeasurePathMtu,
    ProbeRequest,
    ReadBanner,
    ReadInterfaces,
    SendRequest,
    TracePath,
)
from mcdoctor.models.vantage import Vantage
from mcdoctor_checks.mtu import probe as mtu_probe
from mcdoctor_checks.request import probe as request_probe
from mcdoctor_checks.tcp import probe as tcp_probe

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
HERE = Vantage(cluster="a", namespace="shop", pod="frontend-1")
HOST = "backend.shop.svc.clusterset.local"
FLOW = Flow(
    source_text="frontend", destination_text="backend", source_cluster="a", destination_cluster="b", namespace="shop",
    name="backend", host=HOST, port=80, protocol="http", path="/healthz",
    source=Workload(cluster="a", namespace="shop", kind="Deployment.apps", name="frontend",
                    pods=(Pod(cluster="a", namespace="shop", name="frontend-1"),)),
    backends=tuple(Backend(cluster="b", address=f"10.2.0.{i}", port=8080, pod=f"shop/b-{i}") for i in range(1, 10)),
    rungs=(Rung(label="name", address=None, port=80), Rung(label="cluster-ip", address="10.3.0.10", port=80)),
    interconnect=(Layer(layer="l3", system="vpn"),),
)  # fmt: skip
NAME = DnsAnswer(
    at=NOW, vantage=HERE, name=f"{HOST}.", type="A", server="10.0.0.2:53", transport="udp", result="answered",
    rcode="NOERROR", answers=(DnsRecord(name=HOST, type="A", ttl=5, data="10.3.0.10"),), ms=1,
)  # fmt: skip


class Script:
    """A prober that keeps what it was asked and answers with what `answer` makes of it."""

    def __init__(self, answer: Callable[[ProbeRequest], tuple[Fact, ...]] = lambda _: ()) -> None:
        self.asked: list[ProbeRequest] = []
        self._answer = answer

    @property
    def vantage(self) -> Vantage:
        return HERE

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        assert budget > 0
        self.asked.append(request)
        return self._answer(request)

    def close(self) -> None: ...

    def of(self, kind: type[Any]) -> list[Any]:
        return [r for r in self.asked if isinstance(r, kind)]


def world(
    prober: Script | None, *facts: Fact, flow: Flow = FLOW, symptom: Symptom | None = None, **options: Any
) -> World:
    made = Facts(facts, flow)
    return World(flow=flow, facts=made, prober=prober, options=Options(symptom=symptom, **options))


def connect(request: ProbeRequest, result: Any = "open") -> tuple[Fact, ...]:
    if not isinstance(request, ConnectTcp):
        return ()
    return (TcpConnect(at=NOW, vantage=HERE, address=request.address, port=request.port, result=result, ms=1),)


def answer(request: ProbeRequest, result: Any = "response", ms: float = 5) -> tuple[Fact, ...]:
    if not isinstance(request, SendRequest):
        return ()
    status = 200 if result == "response" else None
    if request.count > 1:
        sample = HttpSample(at=NOW, result=result, status=status, ms=ms)
        return (HttpSeries(at=NOW, vantage=HERE, url=request.url, protocol="http/1.1", interval_ms=200,
                           samples=(sample,) * request.count),)  # fmt: skip
    return (
        HttpRequest(at=NOW, vantage=HERE, url=request.url, protocol="http/1.1", result=result, status=status, ms=ms),
    )


def test_the_ladder_is_tried_once_where_all_is_open() -> None:
    prober = Script(connect)
    facts = list(tcp_probe.probe(world(prober, NAME)))
    connects = prober.of(ConnectTcp)
    assert [c.address for c in connects] == ["10.3.0.10", *(f"10.2.0.{i}" for i in range(1, 7))]
    assert connects[0].name == HOST
    assert all(c.tries == 1 for c in connects)
    assert len(facts) == len(connects)


def test_a_silent_rung_is_tried_ten_times_and_traced() -> None:
    prober = Script(lambda r: connect(r, "timeout"))
    list(tcp_probe.probe(world(prober, NAME)))
    assert {c.tries for c in prober.of(ConnectTcp)} == {1, 10}
    assert len(prober.of(TracePath)) == 1


def test_the_far_side_is_asked_when_the_near_one_fails() -> None:
    near, far = Script(lambda r: connect(r, "timeout")), Script(connect)
    list(tcp_probe.probe(replace(world(near, NAME), far=far)))
    assert far.of(ConnectTcp)


def test_past_the_proxy_where_that_is_possible() -> None:
    captured, outside = Script(connect), Script(connect)
    list(tcp_probe.probe(replace(world(captured, NAME), bypass=outside)))
    assert not captured.asked
    assert outside.asked


def test_no_prober_sends_nothing() -> None:
    for probe in (tcp_probe.probe, tcp_probe.probe_capture, mtu_probe.probe, request_probe.probe,
                  request_probe.probe_large, request_probe.probe_small_segments):  # fmt: skip
        assert list(probe(world(None, NAME))) == []


def test_capture_is_looked_for() -> None:
    prober = Script()
    list(tcp_probe.probe_capture(world(prober)))
    assert prober.of(DetectCapture)


def test_sizes_go_to_an_endpoint_that_opened() -> None:
    open_pod = TcpConnect(at=NOW, vantage=HERE, address="10.2.0.2", port=8080, result="open", ms=1)
    open_vip = TcpConnect(at=NOW, vantage=HERE, address="10.3.0.10", port=80, result="open", ms=1)
    prober = Script()
    list(mtu_probe.probe(world(prober, open_vip, open_pod)))
    (asked,) = prober.of(MeasurePathMtu)
    assert (asked.address, asked.port, asked.host) == ("10.2.0.2", 8080, HOST)


def test_sizes_are_not_sent_where_nothing_opens() -> None:
    dead = TcpConnect(at=NOW, vantage=HERE, address="10.3.0.10", port=80, result="timeout", ms=1)
    prober = Script()
    list(mtu_probe.probe(world(prober, dead)))
    assert prober.of(ReadInterfaces)
    assert not prober.of(MeasurePathMtu)


def test_sizes_go_to_a_rung_where_nothing_was_tried() -> None:
    prober = Script()
    list(mtu_probe.probe(world(prober)))
    assert prober.of(MeasurePathMtu)[0].address == "10.3.0.10"


def test_one_request_then_two_short_series() -> None:
    prober = Script(answer)
    list(request_probe.probe(world(prober)))
    first, *series = prober.of(SendRequest)
    assert (first.url, first.method, first.count) == (f"http://{HOST}/healthz", "GET", 1)
    assert sorted((s.count, s.keep) for s in series) == [(4, False), (4, True)]
    assert all(s.interval >= 0.2 for s in series)


def test_the_whole_series_where_the_symptom_asks() -> None:
    prober = Script(answer)
    list(request_probe.probe(world(prober, symptom=Symptom.INTERMITTENT_LATENCY)))
    assert sum(s.count for s in prober.of(SendRequest) if s.count > 1) == 20


def test_the_whole_series_where_answers_vary() -> None:
    prober = Script(lambda r: answer(r, "reset") if isinstance(r, SendRequest) and r.keep else answer(r))
    list(request_probe.probe(world(prober)))
    assert sum(s.count for s in prober.of(SendRequest) if s.count > 1) == 20


def test_a_failed_request_goes_down_the_ladder() -> None:
    flow = replace(FLOW, rungs=(*FLOW.rungs, Rung(label="endpoint", address="10.2.0.1", port=8080)))
    prober = Script(lambda r: answer(r, "timeout"))
    list(request_probe.probe(world(prober, NAME, flow=flow)))
    assert [(s.url, s.address) for s in prober.of(SendRequest)][1:] == [(f"http://{HOST}:8080/healthz", "10.2.0.1")]


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_request_with_effects_is_sent_once(method: str) -> None:
    prober = Script(answer)
    list(request_probe.probe(world(prober, request_method=method, request_path="/x", request_body="{}")))
    (only,) = prober.of(SendRequest)
    assert (only.method, only.body, only.count) == (method, "{}", 1)
    list(request_probe.probe_large(world(prober, symptom=Symptom.LARGE_PAYLOAD_HANG, request_method=method)))
    list(request_probe.probe_small_segments(world(prober, request_method=method)))
    assert len(prober.asked) == 1


def test_an_unknown_protocol_is_listened_to() -> None:
    prober = Script()
    list(request_probe.probe(world(prober, NAME, flow=replace(FLOW, protocol="tcp"))))
    assert [b.address for b in prober.of(ReadBanner)] == ["10.3.0.10"]
    assert not prober.of(SendRequest)


def test_addresses_and_schemes_in_urls() -> None:
    flow = replace(FLOW, host=None, address="fd00::10", port=8443, protocol="https")
    made = request_probe.plan(world(None, flow=flow))
    assert made is not None
    assert made.url == "https://[fd00::10]:8443/healthz"
    grpc = request_probe.plan(world(None, flow=replace(FLOW, protocol="grpc")))
    assert grpc is not None
    assert grpc.protocol == "grpc"
    assert request_probe.plan(world(None, flow=replace(FLOW, host=None))) is None


HOLE = PathMtu(
    at=NOW, vantage=HERE, direction="forward", destination="10.2.0.1", protocol="udp", interface_mtu=1500,
    sizes=(Size(size=1500, result="lost"), Size(size=1420, result="lost"), Size(size=1400, result="delivered")),
)  # fmt: skip


def _request(result: Any, size: int) -> HttpRequest:
    (made,) = answer(SendRequest(url=f"http://{HOST}/healthz"), result)
    assert isinstance(made, HttpRequest)
    return replace(made, request_bytes=size)


def test_a_large_request_where_a_hole_was_measured() -> None:
    prober = Script(answer)
    list(request_probe.probe_large(world(prober, HOLE, _request("response", 100))))
    (asked,) = prober.of(SendRequest)
    assert asked.method == "GET"
    assert len(asked.headers[request_probe.PADDING]) > 1500


def test_no_large_request_without_a_hole_or_without_a_small_answer() -> None:
    prober = Script(answer)
    list(request_probe.probe_large(world(prober, _request("response", 100))))
    list(request_probe.probe_large(world(prober, HOLE, _request("timeout", 100))))
    assert not prober.asked


def test_the_experiment_repeats_what_hung_below_what_was_delivered() -> None:
    prober = Script(answer)
    list(request_probe.probe_small_segments(world(prober, HOLE, _request("timeout", 100), _request("timeout", 3700))))
    small, large = prober.of(SendRequest)
    assert small.max_segment == large.max_segment == 1200
    assert (request_probe.PADDING in (large.headers or {}), request_probe.PADDING in (small.headers or {})) == (
        True,
        False,
    )
