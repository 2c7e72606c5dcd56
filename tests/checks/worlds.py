"""Two small clusters as objects, and DNS looks in one line each, for the cases of the rooms.

A case is a YAML file: `about`, `world`, what differs (`set`, `drop`, `add`), `facts`, and `expect`. Facts are records as
in a bundle with `at` and `vantage` left out, or lines such as

    ask 10.96.0.10 A backend.shop.svc.cluster.local. = NXDOMAIN
    ask 10.96.0.10/tcp A NAME = 10.96.7.80
    ask glibc AAAA NAME = CNAME target.example. NXDOMAIN
    series 10.96.0.10 A NAME = 10.96.7.80*4 timeout NXDOMAIN
    ... options after ';': ms=5003 soa=20 at=+7 from=node:node-a from=pod:other tries=5/3 owner=NAME port=4000 interval=50
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mcdoctor.flow import FlowRequest, parse_target, resolve
from mcdoctor.models.codec import timestamp
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, KubeObject, Listed
from mcdoctor.models.ids import Severity
from mcdoctor.models.outcome import Finding, findings
from mcdoctor.models.record import from_record, to_line
from mcdoctor.models.report import Report
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner.run import arrange, conclude
from mcdoctor_checks import CHECKS
from mcdoctor_playbooks import load

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
HOST = "backend.shop.svc.cluster.local"
LISTED = ("Service", "Pod", "EndpointSlice.discovery.k8s.io", "Namespace", "Deployment.apps", "ServiceImport.multicluster.x-k8s.io",
          "ServiceExport.multicluster.x-k8s.io")  # fmt: skip
COREFILE = """\
.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    forward . /etc/resolv.conf
    cache 30
    loop
}
"""


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def service(name: str, space: str, ip: str, *, port: int = 80, target: Any = 8080, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": space, "creationTimestamp": "2026-10-01T00:00:00Z"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": ["IPv4"],
            "selector": {"app": name},
            "ports": [{"name": "http", "port": port, "targetPort": target, "protocol": "TCP"}],
            **spec,
        },
    }


def pod(name: str, space: str, ip: str, app: str, node: str, *, label: str = "app", port: int = 8080) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": space,
            "labels": {label: app},
            "creationTimestamp": "2026-10-01T00:00:00Z",
        },
        "spec": {
            "nodeName": node,
            "dnsPolicy": "ClusterFirst",
            "containers": [{"name": "app", "image": "x", "ports": [{"name": "http", "containerPort": port}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-10-01T00:01:00Z"}],
            "containerStatuses": [
                {
                    "name": "app",
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-10-01T00:00:30Z"}},
                }
            ],
        },
    }


def endpointslice(
    name: str, space: str, pods: list[dict[str, Any]], port: int = 8080, port_name: str = "http"
) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-x7k2p", "namespace": space, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [p["status"]["podIP"]],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": p["spec"]["nodeName"],
                "targetRef": {"kind": "Pod", "name": p["metadata"]["name"], "namespace": space},
            }
            for p in pods
        ],
    }


def dns_parts(ip: str, pod_ip: str, node: str) -> list[dict[str, Any]]:
    server = pod("coredns-1", "kube-system", pod_ip, "kube-dns", node, label="k8s-app", port=53)
    svc = service("kube-dns", "kube-system", ip, port=53, target=53)
    svc["metadata"]["labels"] = {"k8s-app": "kube-dns"}
    svc["spec"]["selector"] = {"k8s-app": "kube-dns"}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": COREFILE},
    }
    return [svc, server, endpointslice("kube-dns", "kube-system", [server], port=53, port_name="http"), config]


def deployment(name: str, space: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}},
        },
    }


def world(name: str) -> dict[str, list[dict[str, Any]]]:
    """`local`: frontend and backend in cluster a. `far`: backend in b only. `both`: the same Service on both sides.
    `clusterset`: exported from b, imported into a. `alias`: an ExternalName in a."""
    frontend = pod("frontend-1", "shop", "10.10.1.21", "frontend", "node-a")
    here = [namespace("shop"), namespace("kube-system"), frontend, deployment("frontend", "shop", 1),
            *dns_parts("10.96.0.10", "10.10.0.10", "node-a")]  # fmt: skip
    backends = [pod(f"backend-{i}", "shop", f"10.20.1.3{i}", "backend", f"node-b{i}") for i in (1, 2)]
    side = [
        service("backend", "shop", "10.97.7.80"),
        *backends,
        endpointslice("backend", "shop", backends),
        deployment("backend", "shop", 2),
    ]
    there = [namespace("shop"), namespace("kube-system"), *dns_parts("10.97.0.10", "10.20.0.10", "node-b1"), *side]
    if name == "local":
        near = [pod(f"backend-{i}", "shop", f"10.10.1.3{i}", "backend", "node-a") for i in (1, 2)]
        own = [
            service("backend", "shop", "10.96.7.80"),
            *near,
            endpointslice("backend", "shop", near),
            deployment("backend", "shop", 2),
        ]
        return {"a": [*here, *own]}
    if name == "both":
        near = [pod(f"backend-{i}", "shop", f"10.10.1.3{i}", "backend", "node-a") for i in (1, 2)]
        own = [service("backend", "shop", "10.96.7.80"), *near, endpointslice("backend", "shop", near)]
        return {"a": [*here, *own], "b": there}
    if name == "alias":
        alias = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "backend", "namespace": "shop"},
                 "spec": {"type": "ExternalName", "externalName": "api.example.com", "ports": [{"port": 80}]}}  # fmt: skip
        return {"a": [*here, alias]}
    if name == "clusterset":
        kind = {"apiVersion": "multicluster.x-k8s.io/v1alpha1", "metadata": {"name": "backend", "namespace": "shop"}}
        exported = {**kind, "kind": "ServiceExport"}
        imported = {
            **kind,
            "kind": "ServiceImport",
            "spec": {"type": "ClusterSetIP", "ips": ["10.98.7.80"], "ports": [{"name": "http", "port": 80}]},
        }
        lighthouse = service("submariner-lighthouse-coredns", "submariner-operator", "10.96.0.53", port=53, target=53)
        here[-1]["data"]["Corefile"] = "clusterset.local:53 {\n    forward . 10.96.0.53\n}\n" + COREFILE
        return {"a": [*here, imported, lighthouse], "b": [*there, exported]}
    assert name == "far", name
    return {"a": here, "b": there}


@dataclass(frozen=True, eq=False)
class Case:
    """A case as written: what was given, and what is wanted."""

    name: str
    about: str
    facts: tuple[Fact, ...]
    request: FlowRequest
    complete: tuple[str, ...]
    expect: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @cache  # noqa: B019  # cases live as long as the tests
    def report(self) -> Report:
        arranged = arrange(self.facts)
        flow = resolve(self.request, Facts(arranged, None, self.complete))
        return conclude(CHECKS, arranged, flow, load(), complete=self.complete)

    @cache  # noqa: B019
    def judged(self) -> tuple[Facts, dict[str, list[Finding]]]:
        """Findings by check id."""
        arranged = arrange(self.facts)
        facts = Facts(arranged, resolve(self.request, Facts(arranged, None, self.complete)), self.complete)
        return facts, {c.id: list(findings(c.judge(facts))) for c in CHECKS}


@cache
def cases(room: str) -> tuple[Case, ...]:
    folder = Path(__file__).parent / room / "cases"
    return tuple(read(path) for path in sorted(folder.glob("*.yaml")))


def read(path: Path) -> Case:
    text = path.read_text("utf-8")
    data = yaml.safe_load(text)
    objects = world(data.get("world", "local"))
    for key, value in (data.get("set") or {}).items():
        cluster, kind, name, place = key.split(" ", 3)
        _put(_find(objects, cluster, kind, name), place, copy.deepcopy(value))
    for key in data.get("drop") or ():
        cluster, kind, name = key.split(" ", 2)
        objects[cluster].remove(_find(objects, cluster, kind, name))
    for cluster, more in (data.get("add") or {}).items():
        objects[cluster].extend(more)
    facts: list[Fact] = []
    for cluster, bodies in objects.items():
        facts += [KubeObject(at=NOW, vantage=Vantage(cluster=cluster), cluster=cluster, body=b) for b in bodies]
        if data.get("listed", True):
            hidden = data.get("hide") or ()
            facts += [
                Listed(at=NOW, vantage=Vantage(cluster=cluster), cluster=cluster, wanted=k, count=0)
                for k in LISTED
                if k not in hidden
            ]
    for written in data.get("facts") or ():
        facts.append(_line(written) if isinstance(written, str) else _record(written))
    pair = data.get("pair") or ["frontend", "backend.shop"]
    request = FlowRequest(
        source=parse_target(pair[0]),
        destination=parse_target(pair[1]),
        source_cluster="a",
        destination_cluster="b" if "b" in objects else "a",
        namespace="shop",
        port=data.get("port"),
    )
    loaded = tuple(from_record(yaml.safe_load(to_line(f))) for f in facts)  # cases pass through the form of the wire
    about = [
        x
        for x in text.splitlines()
        if not x.startswith(("about:", "expect:", "  cause", "  certainty", "  findings", "  absent"))
    ]
    return Case(
        path.stem, data["about"], loaded, request, tuple(data.get("complete") or ()), data["expect"], tuple(about)
    )


def _find(objects: dict[str, list[dict[str, Any]]], cluster: str, kind: str, name: str) -> dict[str, Any]:
    space, _, bare = name.rpartition("/")
    for body in objects[cluster]:
        meta = body["metadata"]
        if body["kind"] == kind and meta["name"] == bare and (meta.get("namespace") or "") == space:
            return body
    raise KeyError(f"{kind} {name} in {cluster}")


def _put(body: Any, place: str, value: Any) -> None:
    *path, last = place.split("|")
    for step in path:
        body = body[int(step)] if isinstance(body, list) else body.setdefault(step, {})
    if isinstance(body, list):
        body[int(last)] = value
    else:
        body[last] = value


def _record(written: dict[str, Any]) -> Fact:
    written = {"at": timestamp(NOW), "vantage": {"cluster": "a", "namespace": "shop", "pod": "frontend-1"}, **written}
    return from_record(written)


def _line(text: str) -> Fact:
    if text.startswith("resolv.conf"):
        words = text.split()[1:]
        libc = next((w for w in words if w in ("glibc", "musl")), None)
        servers = [w for w in words if w[0].isdigit()] or ["10.96.0.10"]
        search = [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            *(w for w in words if w[0] not in "0123456789" and w != libc),
        ]
        return _record(
            {
                "kind": "resolv_conf",
                "nameservers": servers,
                "search": search,
                "options": ["ndots:5"],
                **({"libc": libc} if libc else {}),
            }
        )
    if text == "control":
        return _line("ask 10.96.0.10 A kubernetes.default.svc.cluster.local. = 10.96.0.1")
    head, _, rest = text.partition(" = ")
    verb, server, type_, name = head.split()
    got, _, more = rest.partition(";")
    options = dict(o.split("=", 1) for o in more.split())
    at = NOW + timedelta(seconds=float(options.get("at", "0")))
    vantage: dict[str, str] = {"cluster": "a", "namespace": "shop", "pod": "frontend-1"}
    kind, _, place = options.get("from", "").partition(":")
    if kind == "node":
        vantage = {"cluster": "a", "node": place}
    elif kind == "pod":
        vantage["pod"] = place
    elif kind == "host":
        vantage = {"cluster": "a", "host": place}
    libc = server if server in ("glibc", "musl", "go") else None
    address, _, transport = ("10.96.0.10" if libc else server).partition("/")
    record: dict[str, Any] = {
        "at": timestamp(at), "vantage": vantage, "name": name, "type": type_, "server": f"{address}:53", "transport": transport or "udp",
    }  # fmt: skip
    if libc:
        record["resolver"] = libc
    if verb == "series":
        samples = []
        for part in got.split():
            what, _, count = part.partition("*")
            what, _, ms = what.partition("/")
            for _ in range(int(count or 1)):
                sample = _result([what], name, type_, options)
                sample["ms"] = float(ms or sample.pop("ms", 2))
                answers = sample.pop("answers", None)
                sample["answers"] = None if answers is None else [a["data"] for a in answers]
                sample.pop("authority", None)
                samples.append({"at": timestamp(at + timedelta(seconds=0.05 * len(samples))), **sample})
        extra = {"source_port": int(options["port"])} if "port" in options else {}
        return from_record({"kind": "dns_series", **record, "interval_ms": 50, "samples": samples, **extra})
    result = _result(got.split(), options.get("owner", name), type_, options)
    if "tries" in options:
        tries, _, fine = options["tries"].partition("/")
        result |= {"tries": int(tries), "successes": int(fine)}
    return from_record({"kind": "dns_answer", **record, "ms": float(options.get("ms", 2)), **result})


def _result(words: list[str], name: str, type_: str, options: dict[str, str]) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    rcode = "NOERROR"
    if words[0] in ("timeout", "refused", "unreachable"):
        return {"result": words[0], "ms": 2000.0 if words[0] == "timeout" else 1.0}
    if words[0] == "CNAME":
        answers.append({"name": name, "type": "CNAME", "ttl": 5, "data": words[1]})
        name, words = words[1], words[2:]
    for word in words:
        if word in ("NXDOMAIN", "SERVFAIL", "REFUSED", "NOTIMP", "FORMERR", "NOERROR"):
            rcode = word
        elif word == "TC":
            return {"result": "answered", "rcode": "NOERROR", "answers": [], "tc": True}
        else:
            answers += [{"name": name, "type": type_, "ttl": 30, "data": a} for a in word.split(",")]
    out: dict[str, Any] = {"result": "answered", "rcode": rcode, "answers": answers}
    if "soa" in options:
        out["authority"] = [
            {"name": "cluster.local.", "type": "SOA", "ttl": int(options["soa"]), "data": "ns hostmaster 1 2 3 4 5"}
        ]
    return out


def check(case: Case) -> None:
    """Asserts everything that the case expects: findings that are there, that are not, and the first cause."""
    _, by_check = case.judged()
    report = case.report()
    seen = {f.id: f for found in by_check.values() for f in found}
    wanted = case.expect.get("findings") or []
    assert set(wanted) <= set(seen), f"missing {sorted(set(wanted) - set(seen))}; seen {sorted(seen)}"
    unwanted = set(case.expect.get("absent") or ())
    assert not unwanted & set(seen), f"unwanted {sorted(unwanted & set(seen))}"
    if case.expect.get("quiet"):
        room = case.expect["quiet"]
        loud = [
            f.id
            for i, found in by_check.items()
            if i.startswith(room)
            for f in found
            if f.severity is not Severity.NOTE
        ]
        assert not loud, f"a healthy pair is accused: {loud}"
    ranked = [(d.cause.id, str(d.certainty)) for d in report.diagnoses]
    if "cause" in case.expect:
        if case.expect["cause"] is None:
            assert not ranked, f"nothing is wrong, and yet: {ranked}"
        else:
            assert ranked and ranked[0][0] == case.expect["cause"], f"ranked {ranked}; seen {sorted(seen)}"
            if "certainty" in case.expect:
                assert ranked[0][1] == case.expect["certainty"], f"ranked {ranked}; seen {sorted(seen)}"
    for also in case.expect.get("also") or ():
        assert also in dict(ranked), f"{also} is not among {ranked}"
    outcomes = {r.id: type(r.outcome).__name__ for r in report.ran}
    for check_id, outcome in (case.expect.get("outcomes") or {}).items():
        assert outcomes[check_id] == outcome, f"{check_id} is {outcomes[check_id]}"
