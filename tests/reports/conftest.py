"""Sample reports: what an engineer gets to see in five situations."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mcdoctor.diagnosis import diagnose
from mcdoctor.models.facts import Blind, DnsAnswer, Fact, HttpRequest, PathMtu, SizeResult, TcpConnect
from mcdoctor.models.flow import Backend, Flow, Layer, Pod, Rung, ServicePort, Workload
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Failed, Finding, Outcome, Passed, Skipped, Unknown
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Ran, Report
from mcdoctor.models.vantage import Vantage
from mcdoctor_playbooks import read

NOW = datetime(2026, 3, 1, 2, 58, 12, tzinfo=UTC)
FRONTEND = Vantage(cluster="cluster-a", namespace="demo", pod="frontend-7d9c5b8f6-x2x1z")

SAMPLE = Path(__file__).parent / "sample"


@pytest.fixture(scope="session")
def library() -> Library:
    books = ("large-payload-hang.yaml", "connection-timeout.yaml")
    sentences = {"sentences.yaml": (SAMPLE / "sentences.yaml").read_text("utf-8")}
    return read({name: (SAMPLE / name).read_text("utf-8") for name in books}, sentences)


def flow() -> Flow:
    pod = Pod(cluster="cluster-a", namespace="demo", name="frontend-7d9c5b8f6-x2x1z", ready=True)
    backend = Backend(cluster="cluster-b", address="10.2.0.9", port=8443, pod="demo/backend-5f6d8c7b9-aaaaa")
    return Flow(
        source_text="frontend",
        destination_text="backend",
        source=Workload(cluster="cluster-a", namespace="demo", kind="Deployment.apps", name="frontend", pods=(pod,)),
        source_cluster="cluster-a",
        destination_cluster="cluster-b",
        namespace="demo",
        name="backend",
        host="backend.demo.svc.clusterset.local",
        port=8443,
        protocol="https",
        remote=ServicePort(cluster="cluster-b", namespace="demo", name="backend", port=8443, cluster_ips=("10.3.0.1",)),
        backends=(backend,),
        rungs=(Rung(label="gateway", address="192.0.2.7", port=15443),),
        interconnect=(Layer(layer="l3", system="submariner", mode="ipsec", evidence=("Gateway object",)),),
    )


def fact(kind: type[Fact], **kw: Any) -> Any:
    return kind(at=NOW, vantage=FRONTEND, **kw)


def ran(name: str, outcome: Outcome, title: str = "", vantage: str = "") -> Ran:
    return Ran(id=name, title=title or name.replace("-", " "), outcome=outcome, vantage=vantage, ms=12.0)


def report(library: Library, runs: tuple[Ran, ...], facts: tuple[Fact, ...] = (), **kw: Any) -> Report:
    pair = kw.pop("flow", flow())
    answer, symptoms, diagnoses, limits = diagnose(runs, facts, pair, library, symptom=kw.pop("symptom", None))
    return Report(
        flow=pair, verdict=answer, symptoms=symptoms, diagnoses=diagnoses, ran=runs, facts=facts, limits=limits,
        **{"means": "lab default", "started": NOW, "seconds": 3.2, **kw},
    )  # fmt: skip


def black_hole(library: Library) -> Report:
    mtu = fact(
        PathMtu, direction="forward", destination="10.2.0.9", protocol="udp",
        sizes=tuple(
            SizeResult(size=s, result="delivered" if s <= 1400 else "lost") for s in (576, 1280, 1400, 1401, 1500)
        ),
    )  # fmt: skip
    hang = fact(
        HttpRequest, url="https://backend.demo.svc.clusterset.local:8443/large", protocol="http/1.1",
        result="timeout", ms=3000.0,
    )  # fmt: skip
    works = fact(
        HttpRequest, url="https://backend.demo.svc.clusterset.local:8443/large", protocol="http/1.1",
        result="response", status=200, ms=31.0, max_segment=1200, served_by="cluster-b/backend-5f6d8c7b9-aaaaa",
    )  # fmt: skip
    hole = Finding(
        id="mtu-black-hole", hop=Hop.NETWORK, subject="10.2.0.9", symptom=Symptom.LARGE_PAYLOAD_HANG,
        args={"largest": 1400, "destination_ip": "10.2.0.9"}, evidence=(mtu,),
    )  # fmt: skip
    large = Finding(
        id="large-response-hangs", hop=Hop.DEST_POD, subject="backend", symptom=Symptom.LARGE_PAYLOAD_HANG,
        args={"size": 200000}, evidence=(hang,),
    )  # fmt: skip
    proof = Finding(
        id="small-segments-work", hop=Hop.NETWORK, subject="backend", severity=Severity.NOTE, args={"segment": 1200},
        evidence=(works,),
    )  # fmt: skip
    wildcard = Finding(
        id="dns-search-wildcard", hop=Hop.SOURCE_DNS, subject="backend", severity=Severity.WARNING,
        args={"name": "backend"},
    )  # fmt: skip
    runs = (
        ran("dns-service-resolves", Passed(), "the Service name resolves"),
        ran("dns-search-is-safe", Failed((wildcard,)), "the search list adds no wildcard"),
        ran("endpoints-are-ready", Passed(), "the Service has ready endpoints"),
        ran("tcp-port-is-reachable", Passed(), "the port answers"),
        ran("mtu-path-carries-full-packets", Failed((hole,)), "the path carries full packets"),
        ran("request-reaches-backend", Passed(), "the request reaches the backend"),
        ran("request-large-body-arrives", Failed((large,)), "a large body arrives"),
        ran("request-small-segments", Passed((), (proof,)), "small segments get through"),
        ran("tls-handshake-completes", Skipped("not needed: the request itself spoke TLS")),
        ran("mtu-icmp-arrives", Unknown("raw sockets need NET_RAW", "mcdoctor diagnose --profile netadmin …")),
    )
    return report(library, runs, (mtu, hang, works))


def healthy(library: Library) -> Report:
    runs = tuple(ran(x, Passed()) for x in ("dns-service-resolves", "tcp-port-is-reachable", "request-reaches-backend"))
    return report(library, runs, means="live")


def warned(library: Library) -> Report:
    odd = Finding(id="dns-search-wildcard", hop=Hop.SOURCE_DNS, subject="backend", severity=Severity.WARNING,
                  symptom=Symptom.DNS_PERSISTENT_FAILURE, args={"name": "backend"})  # fmt: skip
    runs = (
        ran("dns-search-is-safe", Failed((odd,))),
        ran("request-reaches-backend", Passed()),
    )
    return report(library, runs, means="live")


def silent_port(library: Library) -> Report:
    tcp = fact(TcpConnect, address="10.2.0.9", port=8443, result="timeout", ms=3000.0, tries=5, successes=0)
    blind = Blind(
        at=NOW, vantage=Vantage(cluster="cluster-b"), wanted="NetworkPolicy.networking.k8s.io", about="demo",
        reason="the API server answered 403", cluster="cluster-b", permission="list networkpolicies",
        command="kubectl --context cluster-b auth can-i list networkpolicies -n demo", status=403,
    )  # fmt: skip
    silent = Finding(
        id="tcp-silent", hop=Hop.NETWORK, subject="10.2.0.9:8443", symptom=Symptom.CONNECTION_TIMEOUT,
        args={"failed": 5, "tries": 5}, evidence=(tcp,),
    )  # fmt: skip
    odd = Finding(id="request-times-out", hop=Hop.DEST_POD, subject="backend", symptom=Symptom.CONNECTION_TIMEOUT)
    runs = (
        ran("dns-service-resolves", Passed(), "the Service name resolves"),
        ran("tcp-port-is-reachable", Failed((silent,))),
        ran("request-reaches-backend", Failed((odd,))),
        ran("netpol-allows-path", Unknown("the API server answered 403")),
        ran("mtu-path-carries-full-packets", Skipped("needs a connection", "tcp-port-is-reachable")),
    )
    return report(library, runs, (tcp, blind), means="live")


def static(library: Library) -> Report:
    runs = (
        ran("endpoints-are-ready", Passed(), "the Service has ready endpoints"),
        ran("request-reaches-backend", Unknown("nothing was sent: --probe none", "mcdoctor diagnose frontend backend")),
    )
    return report(library, runs, means="live, nothing sent", symptom=Symptom.CONNECTION_TIMEOUT)


EVIL = (
    "x\x1b[2J\x1b]0;owned\x07\u202eevil\nHEALTHY: all fine [bold red]<script>alert(1)</script> "
    "**b** | `c` [l](http://e) ~~s~~ @team"
)


def hostile(library: Library) -> Report:
    dns = fact(
        DnsAnswer, name=EVIL, type="A", server="10.0.0.10:53", transport="udp", result="answered", rcode="NXDOMAIN",
        answers=(), ms=1.0,
    )  # fmt: skip
    odd = Finding(id="tcp-silent", hop=Hop.NETWORK, subject=EVIL, args={"failed": EVIL, "tries": 5}, evidence=(dns,))
    strange = Finding(id="never-heard-of", hop=Hop.SOURCE_DNS, subject=EVIL, evidence=(dns,))
    blind = Blind(at=NOW, vantage=Vantage(cluster=EVIL), wanted=EVIL, about=EVIL, reason=EVIL, permission=EVIL,
                  command=EVIL)  # fmt: skip
    pair = Flow(source_text=EVIL, destination_text=EVIL, source_cluster=EVIL, destination_cluster=EVIL + "2",
                host=EVIL, namespace=EVIL, port=80)  # fmt: skip
    runs = (ran("tcp-port-is-reachable", Failed((odd, strange))), ran("request-reaches-backend", Unknown(EVIL, EVIL)))
    return report(library, runs, (dns, blind), flow=pair, means=EVIL)


SAMPLES = {
    "black-hole": black_hole, "healthy": healthy, "warned": warned,
    "silent-port": silent_port, "static": static, "hostile": hostile,
}  # fmt: skip


@pytest.fixture(scope="session")
def samples(library: Library) -> dict[str, Report]:
    return {name: make(library) for name, make in SAMPLES.items()}
