"""What a diagnosis must stand: fewer facts weaken it and never redirect it, noise and other names change nothing.

    python tests/metamorphic.py [--only WORD] [--how WORD] [--rounds N] [--seed N] [-v]

Every recorded case of `tests/accuracy.py` is changed in ways whose effect is known and diagnosed again in this process:

- fewer: facts of a kind, random facts, optional fields, objects of a kind or of a cluster are taken away. The verdict
  is not `healthy` while a failed request of the source is still among them; no cause but the expected ones is held with
  confidence; and a healthy pair gets neither an error nor a cause.
- noise: what concerns other workloads is added. The diagnosis is the same.
- renamed: other names, addresses, times and another order. The diagnosis is the same.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parent))

import accuracy

from mcdoctor.flow import FlowError
from mcdoctor.models.facts import (
    Absent,
    Blind,
    DnsAnswer,
    EndpointAnswer,
    Fact,
    HttpRequest,
    HttpSeries,
    Interface,
    KubeObject,
    Listed,
    LogLine,
    PathMtu,
    ResolvConf,
    TcpConnect,
)
from mcdoctor.models.ids import Certainty, Severity, Verdict
from mcdoctor.models.outcome import Finding, findings
from mcdoctor.models.playbook import Library
from mcdoctor.models.record import from_record, to_record
from mcdoctor.models.report import Report
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner import registry
from mcdoctor.runner.bundle import Bundle, read_bundle
from mcdoctor.runner.replay import replay, request_of

Changed = tuple[str, Bundle]

_READ = (KubeObject, EndpointAnswer, Listed, Absent, Blind)
_SAID_WITH_THE_VALUE = frozenset(
    {
        "via",
        "max_segment",
        "bypass_proxy",
        "uid",
        "idle_s",
        "connection",
        "request_bytes",
        "grpc_status",
        "status",
        "rcode",
        "answers",
        "error",
        "icmp",
        "response_flags",
        "tc",
        "headers",
        "body_start",
        "served_by",
        "resolver",
        "packets",
    }
)
"""Optional fields without which a record tells another story, not a shorter one."""


@dataclass(frozen=True, slots=True)
class Known:
    """A case read once. `right`: causes that may be held with confidence."""

    name: str
    bundle: Bundle
    right: frozenset[str]
    healthy: bool
    report: Report


@cache
def checks_and_library() -> tuple[Sequence[Any], Library]:
    from mcdoctor_playbooks import load

    return registry.load().checks, load()


def diagnosed(bundle: Bundle) -> Report:
    """The report of a bundle, in this process; raises FlowError where the pair can no longer be told."""
    checks, library = checks_and_library()
    return replay(bundle, checks, library, request_of(bundle))


@cache
def known() -> Mapping[str, Known]:
    """Every case, by name."""
    out: dict[str, Known] = {}
    for case in accuracy.cases():
        bundle = read_bundle(case.folder)
        try:
            report = diagnosed(bundle)
        except FlowError:  # accuracy.py tells of it
            continue
        sure = {d.cause.id for d in report.diagnoses if d.certainty is not Certainty.POSSIBLE}
        if not sure <= {*case.causes, *case.alternatives} or report.verdict != case.verdict:  # accuracy.py counts it
            continue
        out[case.name] = Known(
            name=case.name,
            bundle=bundle,
            right=frozenset((*case.causes, *case.alternatives)),
            healthy=case.verdict == Verdict.HEALTHY,
            report=report,
        )
    return out


# --- fewer --------------------------------------------------------------------------------------------------------


def _with(bundle: Bundle, facts: Iterable[Fact], complete: Iterable[str] = ()) -> Bundle:
    return replace(bundle, facts=tuple(facts), complete=tuple(complete))


def _probed(bundle: Bundle) -> list[Fact]:
    return [f for f in bundle.facts if not isinstance(f, _READ)]


def without_a_kind(case: Known, _: random.Random) -> Iterator[Changed]:
    """No fact of one kind."""
    for kind in sorted({type(f).KIND for f in _probed(case.bundle)}):
        kept = [f for f in case.bundle.facts if isinstance(f, _READ) or kind != type(f).KIND]
        yield f"no {kind}", _with(case.bundle, kept, case.bundle.complete)


def without_an_object_kind(case: Known, _: random.Random) -> Iterator[Changed]:
    """A kind of objects was not read: neither objects nor the end of a list."""
    bundle = case.bundle
    for kind in sorted({f.kind for f in bundle.facts if isinstance(f, KubeObject)}):
        kept = [
            f
            for f in bundle.facts
            if not (isinstance(f, KubeObject) and f.kind == kind)
            and not (isinstance(f, (Listed, Absent)) and f.wanted == kind)
        ]
        whole = _kinds_complete(bundle) - {kind, kind.partition(".")[0]}
        yield f"no {kind} read", _with(bundle, kept, sorted(whole))


def _kinds_complete(bundle: Bundle) -> set[str]:
    if "*" in bundle.complete:
        return {f.kind for f in bundle.facts if isinstance(f, KubeObject)} | {"NetworkPolicy.networking.k8s.io"}
    return set(bundle.complete)


def without_random_facts(case: Known, chance: random.Random) -> Iterator[Changed]:
    """A fifth to a half of the probed facts is missing."""
    share = chance.uniform(0.2, 0.5)
    kept = [f for f in case.bundle.facts if isinstance(f, _READ) or chance.random() >= share]
    yield f"{share:.0%} of facts gone", _with(case.bundle, kept, case.bundle.complete)


def without_random_objects(case: Known, chance: random.Random) -> Iterator[Changed]:
    """A fifth to a half of the objects is missing, and nothing is known to be complete."""
    share = chance.uniform(0.2, 0.5)
    kept = [
        f
        for f in case.bundle.facts
        if not isinstance(f, (Listed, Absent)) and (not isinstance(f, KubeObject) or chance.random() >= share)
    ]
    yield f"{share:.0%} of objects gone", _with(case.bundle, kept)


def without_a_cluster(case: Known, _: random.Random) -> Iterator[Changed]:
    """No rights in one cluster: its objects are Blind."""
    bundle = case.bundle
    for entry in bundle.clusters:
        gone = [f for f in bundle.facts if isinstance(f, KubeObject) and f.cluster == entry.name]
        kept = [
            f
            for f in bundle.facts
            if not (isinstance(f, (KubeObject, EndpointAnswer, Listed, Absent)) and f.cluster == entry.name)
        ]
        blind = [
            Blind(
                at=bundle.collected_at,
                vantage=Vantage(cluster=entry.name, host="api"),
                wanted=kind,
                about=kind,
                reason="forbidden",
                cluster=entry.name,
                permission=f"list {kind}",
                status=403,
            )
            for kind in sorted({f.kind for f in gone})
        ]
        yield f"no rights in {entry.name}", _with(bundle, [*kept, *blind])
        yield f"nothing read in {entry.name}", _with(bundle, kept)


def without_completeness(case: Known, _: random.Random) -> Iterator[Changed]:
    """No list is known to have been read to its end."""
    yield "nothing complete", _with(case.bundle, [f for f in case.bundle.facts if not isinstance(f, (Listed, Absent))])


def without_optional_fields(case: Known, chance: random.Random) -> Iterator[Changed]:
    """Records of a prober that writes the required fields only, or some of the others."""
    for what, share in (("all", 1.0), ("half", 0.5)):
        facts = [f if isinstance(f, _READ) else _shorter(f, share, chance) for f in case.bundle.facts]
        yield f"{what} optional fields gone", _with(case.bundle, facts, case.bundle.complete)


def _shorter(fact: Fact, share: float, chance: random.Random) -> Fact:
    optional = [
        f.name
        for f in fields(fact)
        if f.default is None and f.default is not MISSING and f.name not in _SAID_WITH_THE_VALUE
    ]
    gone = {name: None for name in optional if chance.random() < share}
    if "tries" in gone or "successes" in gone:  # one without the other says something else
        gone |= {name: None for name in ("tries", "successes") if name in optional}
    if getattr(fact, "successes", None) not in (None, getattr(fact, "tries", None)):
        gone = {k: v for k, v in gone.items() if k not in ("tries", "successes")}
    return replace(fact, **gone)


# --- noise --------------------------------------------------------------------------------------------------------


_ODD_NEIGHBOURS = ("healthy-externalname", "held-ok-local-policy-and-healthy-targets")
"""Not to be moved beside another pair: one shares addresses outside 10/8 with it, one needs nodes of its own."""


def with_another_pair(case: Known, chance: random.Random) -> Iterator[Changed]:
    """A healthy pair of other namespaces, with its own names and addresses, recorded beside."""
    donors = [k for k in known().values() if k.healthy and k.name not in (case.name, *_ODD_NEIGHBOURS)]
    draw = chance.random()  # by name: another case among the recorded ones changes few of the pairs
    donor = min(donors, key=lambda k: crc32(f"{draw} {k.name}".encode()))
    yield (
        f"beside {donor.name}",
        _with(case.bundle, [*case.bundle.facts, *_foreign(donor, case.bundle)], case.bundle.complete),
    )


def _foreign(donor: Known, host: Bundle) -> list[Fact]:
    """The donor's own namespaces and facts, as those of somebody else in the clusters of the host."""
    flow = donor.report.flow
    own = {n for n in (flow.namespace, flow.source.namespace if flow.source else "") if n}
    changes = {ns: f"zz-{ns}" for ns in own} | {flow.name: f"zz-{flow.name}"}
    if flow.source:
        changes[flow.source.name] = f"zz-{flow.source.name}"
    clusters = [c.name for c in host.clusters]
    mine = {donor.bundle.source: host.source, donor.bundle.destination: host.destination}
    out: list[Fact] = []
    for fact in donor.bundle.facts:
        if isinstance(fact, KubeObject) and fact.namespace not in own:
            continue
        if isinstance(fact, (Listed, Absent, Blind, EndpointAnswer)):
            continue
        if not isinstance(fact, KubeObject) and fact.vantage.namespace not in own:
            continue
        if isinstance(fact, (Interface, PathMtu)):  # of the cluster's network rather than of the pair
            continue
        moved = _retold(fact, lambda text: renumbered(_tokens(text, changes), 0x28))
        cluster = mine.get(moved.vantage.cluster or "")
        if cluster is None or cluster not in clusters:
            continue
        moved = replace(moved, vantage=replace(moved.vantage, cluster=cluster))
        out.append(replace(moved, cluster=cluster) if isinstance(moved, KubeObject) else moved)
    return out


def with_unrelated_objects(case: Known, _: random.Random) -> Iterator[Changed]:
    """Warning events, restarted pods and strict policies of workloads that are not on the path."""
    bundle = case.bundle
    flow = case.report.flow
    extra: list[Fact] = []
    spaces = {c.name: {"zz-batch"} for c in bundle.clusters}
    for end in (flow.source, flow.remote or flow.local):
        if end is not None:
            spaces.setdefault(end.cluster, set()).add(end.namespace)
    for cluster, names in spaces.items():
        if not any(isinstance(f, KubeObject) and f.cluster == cluster for f in bundle.facts):
            continue
        for namespace in sorted(names):
            extra += [_object(bundle, cluster, body) for body in _bystanders(namespace, bundle.collected_at)]
    yield "unrelated objects", _with(bundle, [*bundle.facts, *extra], bundle.complete)


def _object(bundle: Bundle, cluster: str, body: Mapping[str, Any]) -> KubeObject:
    return KubeObject(at=bundle.collected_at, vantage=Vantage(cluster=cluster, host="api"), cluster=cluster, body=body)


def _bystanders(namespace: str, now: datetime) -> Iterator[Mapping[str, Any]]:
    labels = {"app": "zz-nightly-export"}
    stamp = (now - timedelta(minutes=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    pod = "zz-nightly-export-5d8f7c9b64-m7wq2"
    yield {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod, "namespace": namespace, "labels": labels, "creationTimestamp": stamp},
        "spec": {"nodeName": "zz-node", "containers": [{"name": "job", "image": "registry.example/export:3"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.254.9.9",
            "podIPs": [{"ip": "10.254.9.9"}],
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": stamp}],
            "containerStatuses": [
                {
                    "name": "job",
                    "ready": False,
                    "restartCount": 14,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": stamp}},
                }
            ],
        },
    }
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "zz-nightly-export-shut", "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress", "Egress"]},
    }
    reasons = (
        ("BackOff", "Back-off restarting failed container job in pod zz-nightly-export"),
        ("Unhealthy", "Readiness probe failed: Get http://10.254.9.9:9090/ready: connection refused"),
        ("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu"),
        ("FailedMount", "MountVolume.SetUp failed for volume config: configmap zz-nightly-export not found"),
        ("DNSConfigForming", "Search Line limits were exceeded, some search paths have been omitted"),
    )
    for number, (reason, message) in enumerate(reasons):
        yield {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"zz-nightly-export.{number}", "namespace": namespace},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "count": 9,
            "lastTimestamp": stamp,
            "involvedObject": {"kind": "Pod", "namespace": namespace, "name": pod},
        }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "zz-nightly-export", "namespace": namespace, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.254.8.8",
            "clusterIPs": ["10.254.8.8"],
            "selector": labels,
            "ports": [{"name": "metrics", "port": 9090, "targetPort": "nowhere", "protocol": "TCP"}],
        },
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "zz-nightly-export-x7x7x",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": "zz-nightly-export"},
        },
        "addressType": "IPv4",
        "ports": [],
        "endpoints": [{"addresses": ["10.254.9.9"], "conditions": {"ready": False}}],
    }


def with_foreign_facts(case: Known, _: random.Random) -> Iterator[Changed]:
    """Log lines of strangers, and a pod of another namespace whose own destination fails."""
    bundle = case.bundle
    at = bundle.collected_at if bundle.collected_at.year > 2000 else datetime(2026, 11, 20, 8, tzinfo=UTC)
    here = Vantage(cluster=bundle.source, namespace="zz-batch", pod="zz-nightly-export-5d8f7c9b64-m7wq2")
    name = "ledger.zz-batch.svc.cluster.local"
    extra: list[Fact] = [
        LogLine(at=at, vantage=here, component="app", text="connection refused to ledger:9443, retrying", count=31),
        LogLine(at=at, vantage=here, component="app", text="i/o timeout reading from broker 10.254.7.7:9092", count=4),
        LogLine(at=at, vantage=here, component="kubelet", text="Container job failed liveness probe, will be restarted"),
        DnsAnswer(
            at=at, vantage=here, name=f"{name}.", type="A", server="10.254.0.10:53", transport="udp",
            result="answered", rcode="NXDOMAIN", answers=(), ms=1.2,
        ),
        TcpConnect(at=at, vantage=here, address="10.254.7.7", port=9092, result="timeout", ms=3000.0),
        TcpConnect(at=at, vantage=here, address="10.254.7.8", port=9092, result="refused", ms=0.4),
        HttpRequest(
            at=at, vantage=here, url=f"http://{name}:9443/", protocol="http/1.1", result="connect-error",
            error="connection refused", method="GET", ms=0.7,
        ),
    ]  # fmt: skip
    yield "foreign facts", _with(bundle, [*bundle.facts, *extra], bundle.complete)


def with_more_of_the_good(case: Known, _: random.Random) -> Iterator[Changed]:
    """What went well was seen once more, half a second later."""
    again = [
        replace(f, at=f.at + timedelta(milliseconds=500))
        for f in case.bundle.facts
        if (isinstance(f, TcpConnect) and f.result == "open")
        or (isinstance(f, DnsAnswer) and f.result == "answered" and f.rcode == "NOERROR" and f.answers)
        or isinstance(f, ResolvConf)
    ]
    yield "good facts twice", _with(case.bundle, [*case.bundle.facts, *again], case.bundle.complete)


# --- renamed ------------------------------------------------------------------------------------------------------


def shuffled(case: Known, chance: random.Random) -> Iterator[Changed]:
    """The same facts and objects in another order."""
    facts = list(case.bundle.facts)
    chance.shuffle(facts)
    yield "shuffled", replace(case.bundle, facts=tuple(facts))


_MOMENT = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")


def later(case: Known, _: random.Random) -> Iterator[Changed]:
    """Everything happened 40 days and 7 hours later."""
    shift = timedelta(days=40, hours=7)

    def moved(match: re.Match[str]) -> str:
        then = datetime.fromisoformat(match[0].replace("Z", "+00:00")) + shift
        return then.isoformat().replace("+00:00", "Z")

    bundle = _everywhere(case.bundle, lambda text: _MOMENT.sub(moved, text))
    facts = [replace(f, at=f.at + shift) if isinstance(f, (KubeObject, EndpointAnswer)) else f for f in bundle.facts]
    yield "later", replace(bundle, facts=tuple(facts), collected_at=bundle.collected_at + shift)


def other_names(case: Known, chance: random.Random) -> Iterator[Changed]:
    """Namespaces, clusters and pods are called otherwise, everywhere alike."""
    flow = case.report.flow
    spaces = {n for n in (flow.namespace, flow.source.namespace if flow.source else "") if n}
    spaces -= {"default", "kube-system", "istio-system"}
    spaces = {n for n in spaces if n not in (flow.name, flow.source.name if flow.source else "")}
    yield "other namespaces", _renamed(case.bundle, {n: f"{chance.choice('amz')}q{n}" for n in sorted(spaces)})
    clusters = [c.name for c in case.bundle.clusters]
    if all(re.fullmatch(r"cluster-[a-z]", c) for c in clusters):
        others = dict(zip(clusters, chance.sample(("zeta-9", "blue-4", "cluster-q"), len(clusters)), strict=True))
        yield "other clusters", _renamed(case.bundle, others)
    hashes = {
        m[1]
        for f in case.bundle.facts
        if isinstance(f, KubeObject) and f.kind == "Pod" and (m := re.search(r"-[0-9a-z]{8,10}-([0-9a-z]{5})$", f.name))
    } | {
        m[1]
        for f in _probed(case.bundle)
        if f.vantage.pod and (m := re.search(r"-[0-9a-z]{8,10}-([0-9a-z]{5})$", f.vantage.pod))
    }
    letters = "bcdfghjklmnpqrstvwxz2456789"
    yield "other pods", _renamed(case.bundle, {h: "".join(chance.choices(letters, k=5)) for h in sorted(hashes)})


def other_addresses(case: Known, _: random.Random) -> Iterator[Changed]:
    """Every address of 10/8 has another second octet; ranges hold what they held."""
    yield "other addresses", _everywhere(case.bundle, lambda text: renumbered(text, 0x15))


_TEN = re.compile(r"(?<![\d.-])10([.-])(\d{1,3})([.-])(\d{1,3})([.-])(\d{1,3})(?![\d.])(/\d+)?")


def renumbered(text: str, mask: int) -> str:
    """Addresses and ranges of 10/8 with bits of the second octet turned over."""

    def other(match: re.Match[str]) -> str:
        wide = int(match[7][1:]) if match[7] else 32
        keep = (0xFF << (16 - min(max(wide, 8), 16))) & 0xFF
        second = int(match[2]) ^ (mask & keep)
        return f"10{match[1]}{second}{match[3]}{match[4]}{match[5]}{match[6]}{match[7] or ''}"

    return _TEN.sub(other, text)


def _tokens(text: str, changes: Mapping[str, str]) -> str:
    if not changes:
        return text
    words = "|".join(sorted(map(re.escape, changes), key=len, reverse=True))
    return re.sub(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", lambda m: changes[m[0]], text)


def _renamed(bundle: Bundle, changes: Mapping[str, str]) -> Bundle:
    return _everywhere(bundle, lambda text: _tokens(text, changes))


def _everywhere(bundle: Bundle, change: Callable[[str], str]) -> Bundle:
    head = {
        "clusters": tuple(replace(c, name=change(c.name)) for c in bundle.clusters),
        "request": {k: change(v) for k, v in bundle.request.items()},
    }
    return replace(bundle, facts=tuple(_retold(f, change) for f in bundle.facts), **head)


def _retold(fact: Fact, change: Callable[[str], str]) -> Fact:
    """The fact after a change of its text; field names and kinds of objects are not text of its own."""
    if isinstance(fact, (KubeObject, EndpointAnswer)):
        body = _told(fact.body, change)
        where = replace(fact.vantage, cluster=change(fact.vantage.cluster or ""))
        return replace(fact, body=body, cluster=change(fact.cluster), vantage=where)
    record = to_record(fact)
    kind = record.pop("kind")
    return from_record({"kind": kind, **{k: _told(v, change) for k, v in record.items()}})


_OF_THE_API = frozenset({"apiVersion", "kind", "apiGroup", "type"})


def _told(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {k: v if k in _OF_THE_API else _told(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(v, change) for v in value]
    return value


# --- what must hold -----------------------------------------------------------------------------------------------

FEWER = (
    without_a_kind, without_an_object_kind, without_random_facts, without_random_objects, without_a_cluster,
    without_completeness, without_optional_fields,
)  # fmt: skip
NOISE = (with_another_pair, with_unrelated_objects, with_foreign_facts, with_more_of_the_good)
RENAMED = (shuffled, later, other_names, other_addresses)


def weakened(case: Known, bundle: Bundle) -> list[str]:
    """What fewer facts made worse than unknown."""
    try:
        report = diagnosed(bundle)
    except FlowError:
        return []
    wrong = [
        f"{d.certainty}: {d.cause.id}"
        for d in report.diagnoses
        if d.certainty is not Certainty.POSSIBLE and d.cause.id not in case.right and not _stands_for(d.cause.id, case)
    ]
    if case.healthy:
        alarms = {f.id for f in _loud(report)} - {f.id for f in _loud(case.report)}
        wrong += [f"alarm: {i}" for i in sorted(alarms)]
        wrong += [f"possible: {d.cause.id}" for d in report.diagnoses if d.certainty is Certainty.POSSIBLE]
        if report.verdict in (Verdict.BROKEN, Verdict.DEGRADED):
            wrong.append(f"verdict: {report.verdict}")
    elif (
        report.verdict is Verdict.HEALTHY and case.report.verdict is not Verdict.HEALTHY and _still_fails(case, bundle)
    ):
        wrong.append("verdict: healthy")
    return wrong


GENERAL: Mapping[str, re.Pattern[str]] = {
    "netpol-ingress-not-allowed": re.compile(r"netpol-"),
    "netpol-egress-not-allowed": re.compile(r"netpol-"),
    "pmtu-blackhole": re.compile(r"(mtu|mss|icmp-frag)-"),
    "mtu-encapsulation-overhead": re.compile(r"(mtu|mss)-"),
    "cluster-dns-not-ready": re.compile(r"coredns-forward-loop"),
}
"""Causes that are true of the special ones too: they stand in for those where what tells the special one is not seen."""


def _stands_for(cause: str, case: Known) -> bool:
    return cause in GENERAL and any(GENERAL[cause].match(right) for right in case.right)


def _still_fails(case: Known, bundle: Bundle) -> bool:
    """A request of the source itself that failed is still among the facts. A 5xx alone may be the application's."""
    for fact in bundle.facts:
        if not case.report.flow.is_source(fact.vantage):
            continue
        if isinstance(fact, HttpRequest) and fact.result != "response" and fact.successes in (None, 0):
            return True
        if isinstance(fact, HttpSeries) and all(s.result != "response" for s in fact.samples):
            return True
    return False


def _loud(report: Report) -> list[Finding]:
    return [f for r in report.ran for f in findings(r.outcome) if f.severity is not Severity.NOTE]


def altered(case: Known, bundle: Bundle) -> list[str]:
    """How a diagnosis that should be the same differs."""
    before = case.report
    try:
        after = diagnosed(bundle)
    except FlowError as error:
        return [f"no flow: {error}"]
    wrong = [] if before.verdict is after.verdict else [f"verdict: {before.verdict} became {after.verdict}"]
    one, other = ([f"{d.cause.id} ({d.certainty})" for d in r.diagnoses] for r in (before, after))
    if one != other:
        lost, new = [c for c in one if c not in other], [c for c in other if c not in one]
        wrong.append(f"causes: lost {lost or '-'}, new {new or '-'}" if lost or new else "causes: another order")
    was, now = ({f.id for f in _loud(r)} for r in (before, after))
    wrong += [f"finding gone: {i}" for i in sorted(was - now)] + [f"finding new: {i}" for i in sorted(now - was)]
    return wrong


@dataclass(frozen=True, slots=True)
class Violation:
    """What did not hold: of which case, after which change."""

    case: str
    how: str
    change: str
    wrong: str


def sweep(
    names: Iterable[str], hows: Sequence[Callable[..., Iterator[Changed]]], seeds: Iterable[int]
) -> Iterator[Violation]:
    """Every violation of these cases under these changes."""
    cases = known()
    for name in names:
        for how in hows:
            for seed in seeds:
                holds = weakened if how in FEWER else altered
                for change, bundle in how(cases[name], random.Random(f"{seed} {name} {how.__name__}")):
                    for wrong in holds(cases[name], bundle):
                        yield Violation(name, how.__name__, change, wrong)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name holds this word")
    parser.add_argument("--how", default="", help="changes whose name holds this word")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    asked = parser.parse_args(arguments)
    names = [n for n in known() if asked.only in n]
    hows = [h for h in (*FEWER, *NOISE, *RENAMED) if asked.how in h.__name__]
    found: list[Violation] = []
    for how in hows:
        drawn = "random" in how.__name__ or how in (with_another_pair, without_optional_fields, shuffled)
        seeds = range(asked.seed, asked.seed + (asked.rounds if drawn else 1))
        mine = list(sweep(names, [how], seeds))
        found += mine
        print(f"{how.__name__:26} {len(mine):4} violations in {len({v.case for v in mine})} cases", file=sys.stderr)
    if asked.output == "json":
        print(json.dumps([[v.case, v.how, v.change, v.wrong] for v in found], indent=1))
        return bool(found)
    for (how, wrong), count in Counter((v.how, v.wrong) for v in found).most_common():
        where = [f"{v.case} ({v.change})" for v in found if (v.how, v.wrong) == (how, wrong)]
        print(f"{count:4}  {how:24} {wrong}\n        {'; '.join(where[:4])}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
