"""The policy engine asked for this flow, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from mcdoctor.flow.objects import mapping, maps, matches, sequence
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    DnsAnswer,
    Fact,
    HttpRequest,
    HttpSeries,
    KubeObject,
    LogLine,
    ObservedSource,
    TcpConnect,
)
from mcdoctor.models.flow import Flow, Pod
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding
from mcdoctor.policy import path
from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine
from mcdoctor.policy.near import NearMiss
from mcdoctor.policy.path import Answer
from mcdoctor.policy.question import Address, PodName, Question
from mcdoctor.policy.smallest import suggest, to_yaml
from mcdoctor.policy.verdict import Deciding, Direction, Verdict
from mcdoctor_checks.netpol.facts import NETWORK_POLICY
from mcdoctor_checks.netpol.questions import data_question, dns_questions, engine, source_of
from mcdoctor_checks.sight import place, split_host_port

_SYMPTOM = Symptom.EGRESS_BLOCKED


def evaluate(facts: Facts, flow: Flow, pod: Pod, found: tuple[KubeObject, ...]) -> tuple[list[Finding], str]:
    """Everything that the policies in sight say against the flow, and why they may not settle it ('' when they do)."""
    world = engine(facts, flow)
    problems = [*_ignored(facts, flow, pod, found), *_dns(facts, flow, pod, world), *_upstream(facts, pod, world)]
    question = data_question(facts, flow, pod)
    if question is None:
        return problems, ""
    answer = path.ask(world, question)
    if answer.verdict is Verdict.DENIED:
        problems.extend(_denied(facts, flow, pod, world, question, answer))
    elif answer.verdict is Verdict.CONDITIONAL and (some := _some(facts, flow, answer)) is not None:
        problems.append(some)
    elif answer.verdict is not Verdict.ALLOWED:
        return problems, answer.reason
    return problems, ""


# --- data ------------------------------------------------------------------------------------------------------


def _denied(facts: Facts, flow: Flow, pod: Pod, world: Engine, question: Question, answer: Answer) -> Iterable[Finding]:
    passes = _passes(facts, flow)
    port = _pod_port(flow)
    changes = {} if passes is not None else _changes(world, answer)
    for direction, hop in ((Direction.EGRESS, Hop.SOURCE_EGRESS_POLICY), (Direction.INGRESS, Hop.DEST_INGRESS_POLICY)):
        by = [d for d in answer.deciding if d.direction is direction and d.effect == "deny"]
        if not by:
            continue
        objects = _objects(facts, by)
        args: dict[str, str | int | float] = {
            "policy": _named(by),
            "cluster": by[0].ref.cluster,
            "pod": str(pod),
            "target": f"{flow.namespace}/{flow.name}",
            "port": port or 0,
            "pointer": by[0].pointer,
            "policy_namespace": by[0].ref.namespace,
            "policy_name": by[0].ref.name,
            **changes.get(direction, {}),
        }
        subject = f"{by[0].ref} in {by[0].ref.cluster}"
        word = direction.value
        if passes is not None:
            yield Finding(
                id="netpol-denied-but-passes",
                hop=hop,
                subject=subject,
                severity=Severity.NOTE,
                args=args,
                evidence=(*objects, passes),
            )
            continue
        yield Finding(
            id=f"netpol-denies-{word}", hop=hop, subject=subject, symptom=_SYMPTOM, args=args, evidence=objects
        )
        yield from _nearest(facts, answer, direction, hop)
        yield from _mistakes(facts, flow, world, question, direction, hop, by, objects, args)
        if (failure := _fails(facts, flow)) is not None and _alone(facts, flow, question, objects, direction):
            yield Finding(
                id=f"netpol-alone-denies-{word}",
                hop=hop,
                subject=subject,
                severity=Severity.NOTE,
                args=args,
                evidence=(*objects, failure),
            )


def _nearest(facts: Facts, answer: Answer, direction: Direction, hop: Hop) -> Iterable[Finding]:
    """The rules that were probably meant: each lacks one thing, and with it this side would not refuse."""
    for miss in answer.near[:3]:
        if miss.direction is direction and miss.gap == 1:
            yield Finding(
                id=f"netpol-rule-nearly-matches-{direction.value}",
                hop=hop,
                subject=f"{miss.ref} in {miss.ref.cluster}",
                severity=Severity.NOTE,
                args={
                    "policy": str(miss.ref),
                    "cluster": miss.ref.cluster,
                    "pointer": miss.pointer,
                    "lacks": miss.why,
                    "lacks_ko": miss.ko,
                },
                evidence=_objects(facts, (miss,)),
            )


def _changes(world: Engine, answer: Answer) -> dict[Direction, dict[str, str | int | float]]:
    """The smallest verified change of each side that refuses: the full object, in words, and what else it opens."""
    suggestion = suggest(world, answer, limit=1)
    if suggestion is None:
        return {}
    return {
        side.direction: {
            "change": to_yaml(*side.options[0].objects),
            "change_text": side.options[0].text,
            "opens": side.options[0].opens,
        }
        for side in reversed(suggestion.sides)  # of several endpoints the first
        if side.options
    }


def _alone(facts: Facts, flow: Flow, question: Question, objects: tuple[KubeObject, ...], direction: Direction) -> bool:
    """The counterfactual: without these policies that side would allow it."""
    if not objects:
        return False
    answer = path.ask(engine(facts, flow, without=objects), question, explain=False)
    side = answer.egress if direction is Direction.EGRESS else answer.ingress
    return side is Verdict.ALLOWED


def _mistakes(
    facts: Facts,
    flow: Flow,
    world: Engine,
    question: Question,
    direction: Direction,
    hop: Hop,
    by: list[Deciding],
    objects: tuple[KubeObject, ...],
    args: Mapping[str, str | int | float],
) -> Iterable[Finding]:
    """The usual mistakes behind this refusal, each shown by the objects or by asking the engine otherwise."""
    subject = f"{by[0].ref} in {by[0].ref.cluster}"

    def note(name: str, **more: str | int) -> Finding:
        return Finding(
            id=name, hop=hop, subject=subject, severity=Severity.NOTE, args={**args, **more}, evidence=objects
        )

    end = flow.remote or flow.local
    port = _pod_port(flow)
    if end is not None and end.port and port and end.port != port:
        target = next((b.pod for b in end.backends if b.pod), None)
        if target:
            namespace, _, name = target.partition("/")
            other = Question(question.source, PodName(namespace, name, end.cluster), end.port, question.protocol)
            answer = path.ask(world, other, explain=False)
            side = answer.egress if direction is Direction.EGRESS else answer.ingress
            if side is Verdict.ALLOWED:
                yield note("netpol-names-service-port", service_port=end.port)
    if direction is Direction.INGRESS and (plain := _without_ambient(facts, flow)):
        answer = path.ask(engine(facts, flow, without=plain[0], changed=plain[1]), question, explain=False)
        if answer.ingress is Verdict.ALLOWED:
            yield note("netpol-lacks-hbone", hbone=15008)
    for policy in objects:
        if policy.kind != NETWORK_POLICY:
            continue
        rules = list(maps(policy.spec.get("egress" if direction is Direction.EGRESS else "ingress")))
        key = "to" if direction is Direction.EGRESS else "from"
        own = {"policy": f"NetworkPolicy {policy.namespace}/{policy.name}", "policy_name": policy.name}
        peers = [peer for rule in rules for peer in maps(rule.get(key))]
        meant = [peer for peer in peers if _meant_for_remote(facts, flow, policy, peer, direction)]
        if meant:
            yield note("netpol-selector-meets-remote-pod", selector=_written(meant[0]), **own)
        elif joined := [_written(peer) for peer in peers if _joined_by_mistake(facts, flow, policy, peer, direction)]:
            yield note("netpol-selectors-joined", selector=joined[0], **own)
        elif empty := [_written(peer) for peer in peers if _selects_nothing(facts, policy, peer)]:
            yield note("netpol-peer-selects-nothing", selector=empty[0], **own)
        if direction is Direction.INGRESS and (seen := _translated(facts, flow, peers)):
            yield note("netpol-source-translated", seen=seen.ip, sent_from=str(seen.sent_from or "-"), **own)
        names = [
            str(p["port"])
            for rule in rules
            for p in maps(rule.get("ports"))
            if isinstance(p.get("port"), str) and not _port_name_known(facts, flow, str(p["port"]))
        ]
        if names:
            yield note("netpol-port-name-unknown", port_name=names[0], **own)
        types = sequence(policy.spec.get("policyTypes"))
        if direction is Direction.EGRESS and "Egress" in types and not rules and policy.spec.get("ingress"):
            yield note("netpol-egress-without-rules", **own)
        if (
            direction is Direction.INGRESS
            and policy.spec.get("egress")
            and "Egress" not in types
            and types
            and not rules
        ):
            yield note("netpol-egress-rules-under-ingress", **own)


def _some(facts: Facts, flow: Flow, answer: Answer) -> Finding | None:
    """Some endpoints are refused, others are not."""
    refused = [p for p in answer.paths if p.verdict is Verdict.DENIED]
    if not refused or not any(p.verdict is Verdict.ALLOWED for p in answer.paths):
        return None
    by = [d for p in refused for point in p.points for d in point.by if d.effect == "deny"]
    egress = any(d.direction is Direction.EGRESS for d in by)
    return Finding(
        id="netpol-denies-some",
        hop=Hop.SOURCE_EGRESS_POLICY if egress else Hop.DEST_INGRESS_POLICY,
        subject=f"{by[0].ref} in {by[0].ref.cluster}" if by else flow.destination,
        symptom=_SYMPTOM,
        args={
            "policy": _named(by),
            "failed": len(refused),
            "tries": len(answer.paths),
            "target": f"{flow.namespace}/{flow.name}",
        },
        evidence=_objects(facts, by),
    )


# --- DNS -------------------------------------------------------------------------------------------------------


def _dns(facts: Facts, flow: Flow, pod: Pod, world: Engine) -> Iterable[Finding]:
    if flow.host is None:
        return
    for server, question in dns_questions(facts, flow, pod):
        answer = path.ask(world, question)
        by = [d for d in answer.deciding if d.effect == "deny"]
        if answer.verdict is Verdict.ALLOWED:
            yield Finding(
                id="netpol-allows-dns",
                hop=Hop.SOURCE_EGRESS_POLICY,
                subject=server,
                severity=Severity.NOTE,
                args={"pod": str(pod), "server": server},
            )
        if answer.verdict is not Verdict.DENIED or not by:
            continue
        objects = _objects(facts, by)
        answered = [
            a
            for a in facts.all(DnsAnswer)
            if a.server.rpartition(":")[0].strip("[]") == server and _from_source(facts, flow, a)
        ]
        args: dict[str, str | int | float] = {
            "policy": _named(by),
            "cluster": by[0].ref.cluster,
            "pod": str(pod),
            "server": server,
            "pointer": by[0].pointer,
            "policy_namespace": by[0].ref.namespace,
            "policy_name": by[0].ref.name,
        }
        if not any(a.result == "answered" for a in answered):
            args |= _changes(world, answer).get(Direction.EGRESS, {})
        subject = f"{by[0].ref} in {by[0].ref.cluster}"
        hop = Hop.SOURCE_EGRESS_POLICY
        # A C library says SERVFAIL also when no server answered at all.
        through = [a for a in answered if a.result == "answered" and (a.resolver == "direct" or a.rcode != "SERVFAIL")]
        if through:
            yield Finding(
                id="netpol-denied-but-passes",
                hop=hop,
                subject=subject,
                severity=Severity.NOTE,
                args={**args, "target": server, "port": 53},
                evidence=(*objects, through[0]),
            )
            continue
        yield Finding(id="netpol-denies-dns", hop=hop, subject=subject, symptom=_SYMPTOM, args=args, evidence=objects)
        if _dns_pods_allowed(facts, pod, world):
            yield Finding(
                id="netpol-nameserver-not-in-rule",
                hop=hop,
                subject=subject,
                severity=Severity.NOTE,
                args=args,
                evidence=objects,
            )
        if (
            answered
            and path.ask(engine(facts, flow, without=objects), question, explain=False).egress is Verdict.ALLOWED
        ):
            yield Finding(
                id="netpol-alone-denies-dns",
                hop=hop,
                subject=subject,
                severity=Severity.NOTE,
                args=args,
                evidence=(*objects, answered[0]),
            )


# CoreDNS: `read udp 10.244.0.5:40123->10.0.0.2:53: i/o timeout`
_UNANSWERED = re.compile(r"(?:read|dial) (?:udp|tcp) \S+->\[?([0-9a-fA-F.:]+?)\]?:53: i/o timeout")


def _upstream(facts: Facts, pod: Pod, world: Engine) -> Iterable[Finding]:
    """The DNS pods themselves may not ask their upstream: those in the Corefile, and those seen to be asked."""
    servers = [p for p in facts.objects("Pod", pod.cluster, "kube-system") if p.labels.get("k8s-app") == "kube-dns"]
    names = {p.name for p in servers}
    asked = [a for a in facts.all(DnsAnswer) if a.vantage.pod in names and a.vantage.cluster in (None, pod.cluster)]
    config = facts.object("ConfigMap", pod.cluster, "kube-system", "coredns")
    corefile = str(mapping(config.body.get("data")).get("Corefile") or "") if config else ""
    forwards = [w for line in re.findall(r"^\s*forward\s+\S+\s+(.+)$", corefile, re.M) for w in line.split()]
    told = [
        x
        for x in facts.all(LogLine)
        if x.component == "coredns" and x.vantage.cluster in (None, pod.cluster) and _UNANSWERED.search(x.text)
    ]
    addresses = dict.fromkeys(
        [
            *forwards,
            *(split_host_port(a.server)[0] for a in asked if a.result != "answered"),
            *(found.group(1) for x in told if (found := _UNANSWERED.search(x.text))),
        ]
    )
    for text in addresses:
        try:
            target = Address(parse_ip(text), pod.cluster)
        except ValueError:
            continue
        if not servers:
            return
        question = Question(PodName("kube-system", servers[0].name, pod.cluster), target, 53, "UDP")
        answer = path.ask(world, question, explain=False)
        by = [d for d in answer.deciding if d.effect == "deny" and d.direction is Direction.EGRESS]
        if answer.egress is Verdict.DENIED and by:
            yield Finding(
                id="netpol-denies-dns-upstream",
                hop=Hop.SOURCE_DNS,
                subject=f"{by[0].ref} in {by[0].ref.cluster}",
                severity=Severity.NOTE,
                args={
                    "policy": _named(by),
                    "cluster": by[0].ref.cluster,
                    "server": text,
                    "policy_namespace": by[0].ref.namespace,
                    "policy_name": by[0].ref.name,
                },
                evidence=(
                    *_objects(facts, by),
                    *(a for a in asked if split_host_port(a.server)[0] == text),
                    *(x for x in told if text in x.text),
                ),
            )
            return


def _dns_pods_allowed(facts: Facts, pod: Pod, world: Engine) -> bool:
    """The DNS pods may be reached, so a rule for DNS is there and misses only this nameserver's address."""
    for server in facts.objects("Pod", pod.cluster, "kube-system"):
        if server.labels.get("k8s-app") == "kube-dns":
            question = Question(source_of(pod), PodName("kube-system", server.name, pod.cluster), 53, "UDP")
            return path.ask(world, question, explain=False).verdict is Verdict.ALLOWED
    return False


# --- policies without effect -----------------------------------------------------------------------------------


def _ignored(facts: Facts, flow: Flow, pod: Pod, found: tuple[KubeObject, ...]) -> Iterable[Finding]:
    """Egress rules that policyTypes leaves out: they look like an allow-list and do nothing."""
    body = facts.object("Pod", pod.cluster, pod.namespace, pod.name)
    for policy in found:
        if policy.kind != NETWORK_POLICY or (policy.cluster, policy.namespace) != (pod.cluster, pod.namespace):
            continue
        types = sequence(policy.spec.get("policyTypes"))
        if not policy.spec.get("egress") or not types or "Egress" in types:
            continue
        if body is None or not matches(mapping(policy.spec.get("podSelector")), body.labels):
            continue
        yield Finding(
            id="netpol-egress-rules-ignored",
            hop=Hop.SOURCE_EGRESS_POLICY,
            subject=f"{policy.subject} in {policy.cluster}",
            severity=Severity.WARNING,
            symptom=Symptom.POLICY_WITHOUT_EFFECT,
            args={
                "policy": f"NetworkPolicy {policy.namespace}/{policy.name}",
                "cluster": policy.cluster,
                "pod": str(pod),
                "policy_namespace": policy.namespace or "",
                "policy_name": policy.name,
            },
            evidence=(policy,),
        )


# --- small questions -------------------------------------------------------------------------------------------


def _named(by: Iterable[Deciding]) -> str:
    return ", ".join(dict.fromkeys(str(d.ref) for d in by))


def _objects(facts: Facts, by: Iterable[Deciding | NearMiss]) -> tuple[KubeObject, ...]:
    wanted = {(d.ref.cluster, d.ref.kind, d.ref.namespace, d.ref.name) for d in by}
    return tuple(
        f
        for f in facts
        if isinstance(f, KubeObject) and (f.cluster, str(f.body.get("kind")), f.namespace or "", f.name) in wanted
    )


def _pod_port(flow: Flow) -> int | None:
    end = flow.remote or flow.local
    if end is not None and end.backends:
        return end.backends[0].port
    if end is not None and end.target and end.target.isdigit():
        return int(end.target)
    return flow.port


def _selects_nothing(facts: Facts, policy: KubeObject, peer: Mapping[str, object]) -> bool:
    """True when no known namespace, or no known pod, fits; only where all of them are known."""
    by_namespace, by_pod = peer.get("namespaceSelector"), peer.get("podSelector")
    if not isinstance(by_namespace, Mapping) and not isinstance(by_pod, Mapping):
        return False
    spaces = [policy.namespace or ""]
    if isinstance(by_namespace, Mapping):
        if not facts.complete("Namespace", policy.cluster):
            return False
        spaces = [
            n.name
            for n in facts.objects("Namespace", policy.cluster)
            if matches(by_namespace, {"kubernetes.io/metadata.name": n.name, **n.labels})
        ]
        if not spaces:
            return True
    if not isinstance(by_pod, Mapping) or not by_pod:
        return False
    if not all(facts.complete("Pod", policy.cluster, n) for n in spaces):
        return False
    return not any(matches(by_pod, p.labels) for n in spaces for p in facts.objects("Pod", policy.cluster, n))


def _without_ambient(facts: Facts, flow: Flow) -> tuple[list[KubeObject], list[KubeObject]] | None:
    """(objects, the same without ambient mode) of a destination whose traffic arrives through HBONE; else None."""
    marks = ("ambient.istio.io/redirection", "istio.io/dataplane-mode")
    places = {(b.cluster, b.pod.split("/", 1)[0]) for b in flow.backends if b.pod}
    held = [
        o
        for kind in ("Pod", "Namespace")
        for o in facts.objects(kind)
        if (o.cluster, o.namespace if kind == "Pod" else o.name) in places
        and any(m in o.annotations or m in o.labels for m in marks)
    ]
    if not held:
        return None
    return held, [replace(o, body=_unmarked(o.body, marks)) for o in held]


def _unmarked(body: Mapping[str, Any], marks: Iterable[str]) -> dict[str, Any]:
    meta = {**mapping(body.get("metadata"))}
    for key in ("labels", "annotations"):
        if isinstance(meta.get(key), Mapping):
            meta[key] = {k: v for k, v in meta[key].items() if k not in marks}
    return {**body, "metadata": meta}


def _translated(facts: Facts, flow: Flow, peers: Iterable[Mapping[str, object]]) -> ObservedSource | None:
    """What the destination saw in place of the source's address, where a peer admits only the latter."""
    pod = flow.source_pod
    blocks = [mapping(p["ipBlock"]) for p in peers if isinstance(p.get("ipBlock"), Mapping)]
    own = {ip for p in (flow.source.pods if flow.source else ()) for ip in p.ips} | set(pod.ips if pod else ())
    listening = {b.address for b in flow.backends}
    for seen in facts.all(ObservedSource):
        far = split_host_port(seen.listening)[0] in listening or place(flow, seen.vantage) == "far"
        sent = {seen.sent_from} if seen.sent_from else own
        admitted = any(_covers(b, ip) for b in blocks for ip in sent & own)
        if far and seen.ip not in own and admitted and not any(_covers(b, seen.ip) for b in blocks):
            return seen
    return None


def _covers(block: Mapping[str, Any], address: str) -> bool:
    try:
        ip = ip_address(address)
        inside = ip in ip_network(str(block.get("cidr")), strict=False)
        return inside and not any(ip in ip_network(str(x), strict=False) for x in sequence(block.get("except")))
    except ValueError:
        return False


def _joined_by_mistake(
    facts: Facts, flow: Flow, policy: KubeObject, peer: Mapping[str, object], direction: Direction
) -> bool:
    """A namespace and a pod selector in one item that no pod fits together, while each of them alone fits some.

    As two items they would admit the other end: by its namespace or by its labels.
    """
    by_namespace, by_pod = peer.get("namespaceSelector"), peer.get("podSelector")
    if not isinstance(by_namespace, Mapping) or not isinstance(by_pod, Mapping) or not by_pod:
        return False
    spaces = {
        n.name: matches(by_namespace, {"kubernetes.io/metadata.name": n.name, **n.labels})
        for n in facts.objects("Namespace", policy.cluster)
    }
    fitting = [p for p in facts.objects("Pod", policy.cluster) if matches(by_pod, p.labels)]
    if not fitting or any(spaces.get(p.namespace or "", True) for p in fitting):
        return False
    if direction is Direction.INGRESS:
        pod = flow.source_pod
        others: list[tuple[str, ...]] = [(pod.cluster, pod.namespace, pod.name)] if pod else []
    else:
        others = [(b.cluster, *b.pod.split("/", 1)[:2]) for b in flow.backends if b.pod]
    ends = {(other[0], other[1] or "", other[2]) for other in others if len(other) == 3}
    return any(
        cluster == policy.cluster
        and (spaces.get(namespace) is True or any((p.namespace, p.name) == (namespace, name) for p in fitting))
        for cluster, namespace, name in ends
    )


def _meant_for_remote(
    facts: Facts, flow: Flow, policy: KubeObject, peer: Mapping[str, object], direction: Direction
) -> bool:
    """An ingress peer that would fit the source's labels, if the source were not in another cluster."""
    pod = flow.source_pod
    if direction is Direction.EGRESS or pod is None or pod.cluster == policy.cluster:
        return False
    body = facts.object("Pod", pod.cluster, pod.namespace, pod.name)
    by_namespace, by_pod = peer.get("namespaceSelector"), peer.get("podSelector")
    if body is None or not (isinstance(by_namespace, Mapping) or isinstance(by_pod, Mapping)):
        return False
    if isinstance(by_pod, Mapping) and not matches(by_pod, body.labels):
        return False
    if not isinstance(by_namespace, Mapping):
        return pod.namespace == policy.namespace
    space = facts.object("Namespace", pod.cluster, None, pod.namespace)
    labels = {"kubernetes.io/metadata.name": pod.namespace, **(space.labels if space else {})}
    return matches(by_namespace, labels)


def _written(peer: Mapping[str, object]) -> str:
    """A peer's selectors for people: `namespaceSelector name=shop, podSelector app=web`."""
    parts = []
    for key in ("namespaceSelector", "podSelector"):
        if isinstance(peer.get(key), Mapping):
            selector = mapping(peer[key])
            labels = [f"{k}={v}" for k, v in mapping(selector.get("matchLabels")).items()]
            labels += [f"{e.get('key')} {e.get('operator')}" for e in maps(selector.get("matchExpressions"))]
            parts.append(f"{key} {','.join(labels) or '{}'}")
    return ", ".join(parts)


def _port_name_known(facts: Facts, flow: Flow, name: str) -> bool:
    """Whether any container of the destination's pods declares the port name; true when they cannot be seen."""
    end = flow.remote or flow.local
    pods = [facts.object("Pod", b.cluster, *b.pod.split("/", 1)) for b in (end.backends if end else ()) if b.pod]
    seen = [p for p in pods if p is not None]
    if not seen:
        return True
    return any(
        port.get("name") == name
        for p in seen
        for container in maps(p.spec.get("containers"))
        for port in maps(container.get("ports"))
    )


def _from_source(facts: Facts, flow: Flow, fact: Fact) -> bool:
    pod = flow.source_pod
    return (
        pod is not None
        and fact.vantage.cluster in (None, pod.cluster)
        and fact.vantage.pod in (None, *(p.name for p in (flow.source.pods if flow.source else ())))
        and fact.vantage.node is None
        and fact.vantage.host is None
    )


def _requests(facts: Facts, flow: Flow) -> list[tuple[bool, Fact]]:
    """(got through, fact) of what was sent from the source towards the destination."""
    addresses = {b.address for b in flow.backends} | {r.address for r in flow.rungs if r.label != "neighbour"}
    seen: list[tuple[bool, Fact]] = []
    for request in facts.all(HttpRequest):
        if _from_source(facts, flow, request):
            seen.append((request.result == "response" and request.status not in (502, 503, 504), request))
    for series in facts.all(HttpSeries):
        if _from_source(facts, flow, series) and series.samples:
            seen.append((any(s.result == "response" for s in series.samples), series))
    for connect in facts.all(TcpConnect):
        meant = connect.address in addresses or (connect.name is not None and connect.name == flow.host)
        if meant and _from_source(facts, flow, connect) and not (flow.source_pod and flow.source_pod.proxy):
            seen.append((connect.result == "open", connect))
    return seen


def _passes(facts: Facts, flow: Flow) -> Fact | None:
    """Something that shows the flow getting through."""
    return next((fact for through, fact in _requests(facts, flow) if through), None)


def _fails(facts: Facts, flow: Flow) -> Fact | None:
    """Something that shows it failing, with nothing that shows it passing."""
    seen = _requests(facts, flow)
    if any(through for through, _ in seen):
        return None
    return next((fact for _, fact in seen), None)
