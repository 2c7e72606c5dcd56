"""What the connects say: the ladder, the state of its first rung, and where it breaks."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, HttpSeries, Interception, TcpConnect, Trace
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Passed, Skipped, Unknown, settle
from mcdoctor_checks.sight import capturing, clear, is_address, place, rung_of, split_host_port, veiled_by
from mcdoctor_checks.tcp.reach import Reach, State, front, group, opens, reaches, together, tries

REACH_FINDINGS = (
    "tcp-refused", "tcp-reset", "tcp-silent", "tcp-admin-prohibited", "tcp-host-unreachable", "tcp-net-unreachable",
    "tcp-no-route-here", "tcp-sometimes-silent", "tcp-sometimes-refused", "tcp-one-try-lost",
    "tcp-one-family-fails", "tcp-trace-ends",
    "tcp-open-from-inside", "tcp-refused-from-inside", "tcp-silent-from-inside", "tcp-open-from-beside",
    "tcp-reused-port-fails", "tcp-local-ports-used-up",
    "tcp-ends-before-node", "ladder-breaks-at-name", "ladder-breaks-at-service-address", "ladder-breaks-at-gateway",
    "ladder-breaks-at-endpoint", "ladder-endpoint-refuses", "ladder-endpoint-not-direct", "ladder-neighbour-works",
    "ladder-other-port-works", "ladder-all-silent",
)  # fmt: skip

_HOPS = {
    "name": Hop.NETWORK, "cluster-ip": Hop.DEST_SERVICE, "gateway": Hop.DEST_GATEWAY, "endpoint": Hop.DEST_POD,
    "neighbour": Hop.NETWORK,
}  # fmt: skip
_TIMEOUT, _REFUSED = Symptom.CONNECTION_TIMEOUT, Symptom.CONNECTION_REFUSED_OR_RESET


def judge_reach(facts: Facts) -> Outcome:
    """Open, refused, reset, silent or unreachable; and the first rung that differs."""
    ladder = reaches(facts, "source") or reaches(facts, "near")
    first = front(ladder)
    if not first:
        return _blind(facts, ladder)
    state = together(first)
    evidence = tuple(f for r in first for f in r.facts)
    if state == "silent" and (told := _told_of_endpoint(ladder)):
        problems = [*_of_state(facts, [told], "unreachable"), *_rungs(facts, ladder, first, state)]
    else:
        problems = [*_of_state(facts, first, state), *_rungs(facts, ladder, first, state)]
    problems += _odd_connects(ladder)
    if state not in ("open", "sometimes"):
        problems += [*_from_elsewhere(facts), *_traces(facts, first)]
    if _mesh_goes_elsewhere(facts, first):
        # The proxy chooses where the workload's traffic goes; that the plain way is closed beside it stops nothing.
        problems = [replace(p, severity=Severity.NOTE, symptom=None) for p in problems]
    return settle(problems, evidence)


def _mesh_goes_elsewhere(facts: Facts, first: list[Reach]) -> bool:
    """A proxy captures the source, and the Service here has nobody behind it: its endpoints are the other cluster's."""
    local, flow = facts.flow.local, facts.flow
    if local is None or not flow.crosses_clusters or any(b.ready for b in local.backends):
        return False
    if flow.remote is None and facts.absent("Service", flow.destination_cluster, flow.namespace, flow.name):
        return False
    own = all(r.address in local.cluster_ips for r in first)
    return own and all(capturing(facts, f.vantage) for r in first for f in r.facts)


def _told_of_endpoint(ladder: list[Reach]) -> Reach | None:
    """An endpoint that a router says it cannot reach, where none opens: routers limit their ICMP errors, so the one
    they sent may well be about another address than the first.
    """
    endpoints = [r for r in ladder if r.label == "endpoint"]
    if any(r.opens for r in endpoints):
        return None
    return next((r for r in endpoints if r.state == "unreachable" and r.icmp is not None), None)


def _blind(facts: Facts, ladder: list[Reach]) -> Outcome:
    if proxy := veiled_by(facts, TcpConnect):
        return Unknown(
            f"the source pod's traffic is captured by {proxy}: a connect ends at the local proxy and says nothing of "
            "the far side",
            command="mcdoctor diagnose … --probe pod",
        )
    if blind := facts.blind_to(TcpConnect):
        return Unknown(blind[0].reason, blind[0].command)
    inside = _from_elsewhere(facts)
    reason = "no address of the destination was tried" if ladder else "no connect was made from the source's side"
    return Unknown(reason, notes=tuple(inside))


def _args(first: list[Reach]) -> dict[str, str | int | float]:
    total, opened = sum(r.tries for r in first), sum(r.opens for r in first)
    return {
        "address": ", ".join(r.where for r in first),
        "tries": total,
        "opened": opened,
        "lost": total - opened,
        "failed": total - opened,
    }


def _of_state(facts: Facts, first: list[Reach], state: State) -> list[Finding]:
    evidence: tuple[Fact, ...] = tuple(f for r in first for f in r.facts)
    args = _args(first)
    hop = _HOPS[first[0].label]
    subject = first[0].where

    def error(ident: str, at: Hop, symptom: Symptom) -> Finding:
        return Finding(id=ident, hop=at, subject=subject, symptom=symptom, args=args, evidence=evidence)

    match state:
        case "open":
            found: list[Finding] = []
            if args["lost"] and len({":" in r.address for r in first}) > 1:
                one = _note("tcp-one-family-fails", Hop.NETWORK, subject, evidence, args)
                # Answered with a refusal or with silence: clients that prefer this family fail, or wait before they
                # turn to the other. Without a route nothing is sent, and they turn to it at once.
                mute = [r for r in first if not r.opens]
                told = mute and all(r.state in ("refused", "silent") for r in mute)
                symptom = _REFUSED if told and all(r.state == "refused" for r in mute) else _TIMEOUT
                found.append(replace(one, severity=Severity.ERROR, symptom=symptom) if told else one)
            elif args["lost"]:
                found.append(_note("tcp-one-try-lost", Hop.NETWORK, subject, evidence, args))
            return found
        case "sometimes":
            if all(r.failures.keys() <= {"silent"} for r in first):
                often = 2 * sum(r.opens for r in first) < sum(r.tries for r in first)
                return [error("tcp-sometimes-silent", Hop.NETWORK, _TIMEOUT if often else Symptom.INTERMITTENT_LATENCY)]
            return [error("tcp-sometimes-refused", Hop.DEST_SERVICE, _REFUSED)]
        case "refused":
            return [error("tcp-refused", hop if hop is not Hop.NETWORK else Hop.DEST_SERVICE, _REFUSED)]
        case "reset":
            return [error("tcp-reset", Hop.NETWORK, _REFUSED)]
        case "silent":
            return [error("tcp-silent", Hop.NETWORK, _TIMEOUT)]
        case "unreachable":
            return [_unreachable(facts, first, args, evidence)]


def _unreachable(
    facts: Facts, first: list[Reach], args: dict[str, str | int | float], evidence: tuple[Fact, ...]
) -> Finding:
    """ICMP errors by what they mean; without one the local kernel had no route."""
    icmp = next((r.icmp for r in first if r.icmp is not None), None)
    ident, hop, symptom = "tcp-no-route-here", Hop.SOURCE_NODE, _TIMEOUT
    if icmp is not None:
        ident, hop, symptom = _icmp_meaning(icmp.type, icmp.code)
        args = {**args, "type": icmp.type, "code": icmp.code, "from": icmp.sender or "?"}
    return Finding(id=ident, hop=hop, subject=first[0].where, symptom=symptom, args=args, evidence=evidence)


def _icmp_meaning(kind: int, code: int) -> tuple[str, Hop, Symptom]:
    """ICMP type 3 and ICMPv6 type 1 codes (RFC 792, 1812, 4443)."""
    prohibited = {(3, 9), (3, 10), (3, 13), (1, 1), (1, 5), (1, 6)}
    if (kind, code) in prohibited:
        return "tcp-admin-prohibited", Hop.NETWORK, _REFUSED
    if (kind, code) in {(3, 3), (3, 2), (1, 4)}:
        return "tcp-refused", Hop.DEST_SERVICE, _REFUSED
    if (kind, code) in {(3, 0), (3, 6), (3, 11), (1, 0)}:
        return "tcp-net-unreachable", Hop.NETWORK, _TIMEOUT
    return "tcp-host-unreachable", Hop.NETWORK, _TIMEOUT


def _note(
    ident: str, hop: Hop, subject: str, evidence: tuple[Fact, ...], args: dict[str, str | int | float] | None = None
) -> Finding:
    return Finding(id=ident, hop=hop, subject=subject, severity=Severity.NOTE, args=args or {}, evidence=evidence)


# --- the ladder ----------------------------------------------------------------------------------------------------


def _rungs(facts: Facts, ladder: list[Reach], first: list[Reach], state: State) -> list[Finding]:
    endpoints = [r for r in ladder if r.label == "endpoint"]
    good = [r for r in endpoints if r.state == "open"]
    # One that opens now and then loses packets like the others: it is not the odd one out.
    bad = [r for r in endpoints if r.state not in ("open", "sometimes")]
    if state == "open":
        if good and bad:
            return [_step("ladder-breaks-at-endpoint", Hop.DEST_ENDPOINT, bad, good, Severity.WARNING)]
        return [_step("ladder-endpoint-not-direct", Hop.NETWORK, bad, first, Severity.NOTE)] if bad else []
    found: list[Finding] = []
    if endpoints and all(r.state == "refused" for r in endpoints):
        found.append(_step("ladder-endpoint-refuses", Hop.DEST_POD, endpoints, [], Severity.ERROR))
    if good and bad:
        found.append(_step("ladder-breaks-at-endpoint", Hop.DEST_ENDPOINT, bad, good, Severity.ERROR))
    if state == "sometimes":
        return found
    behind = [r for r in ladder if r.label != "neighbour" and r not in first and r.state == "open"]
    services = [r for r in ladder if r.label == "cluster-ip" and r.state not in ("open", "sometimes")]
    gateways = [r for r in ladder if r.label == "gateway" and r.state not in ("open", "sometimes")]
    strangers = [r for r in first if r.label == "name"]
    # A pod that opens on one port and not on another is no sign that what stands before it fails.
    good = [r for r in good if r.address not in {b.address for b in bad}]
    if strangers and behind:
        found.append(_step("ladder-breaks-at-name", Hop.SOURCE_DNS, strangers, behind, Severity.ERROR))
    elif services and good and (ended := _ends_before_node(facts, services, good)):
        found.append(ended)
    elif services and good:
        found.append(_step("ladder-breaks-at-service-address", Hop.DEST_SERVICE, services, good, Severity.ERROR))
    elif gateways and good:
        found.append(_step("ladder-breaks-at-gateway", Hop.DEST_GATEWAY, gateways, good, Severity.ERROR))
    elif not behind:
        found += _neighbours(ladder, first)
    return found


def _ends_before_node(facts: Facts, services: list[Reach], good: list[Reach]) -> Finding | None:
    """Packets to the Service's address are stopped before the node behind which its endpoint answers.

    The node's own Service rules would act a hop later: it answers a packet that expires there before translating it.
    An address of the source's own cluster is translated at home and tells nothing this way.
    """
    local = facts.flow.local
    if local is not None and any(r.address in local.cluster_ips for r in services):
        return None
    traces = [t for t in clear(facts, Trace) if t.direction != "reverse" and t.hops]
    whole = next((t for t in traces if t.reached and t.destination in {r.address for r in good}), None)
    short = next((t for t in traces if t.destination in {r.address for r in services}), None)
    if whole is None or short is None or whole.hops[-1].icmp != "syn-ack":
        return None
    answered = [h for h in short.hops if h.address]
    last = max((h.ttl for h in answered), default=0)
    node = whole.hops[-1].ttl - 1
    seen = any(h.ttl == node and h.address for h in whole.hops)
    behind = {h.address for h in whole.hops if h.ttl >= node}
    turned = answered[-1].icmp if answered else None
    # A reset bears the destination's address, an ICMP error that of whoever sent it: a router before the node, even
    # when its answers to lower hop limits were lost and a later one was heard first.
    before = {h.address for h in whole.hops if h.address and h.ttl < node} - behind
    error = turned not in (None, "rst", "time-exceeded", "syn-ack")
    sender = answered[-1].address if answered else None
    refused = (turned == "rst" and last <= node) or (
        error and sender not in behind and (last <= node or sender in before)
    )
    if not refused and (short.reached or not seen or last >= node):
        return None
    where = next((h.address for h in reversed(answered) if h.icmp != "rst"), None)
    return Finding(
        id="tcp-ends-before-node",
        hop=Hop.NETWORK,
        subject=services[0].where,
        symptom=_REFUSED if refused else _TIMEOUT,
        args={
            "address": services[0].where,
            "good": good[0].where,
            "hop": where or "?",
            "ttl": last,
            "total": node + 1,
            "state": services[0].state,
        },
        evidence=(short, whole, *(f for r in services for f in r.facts)),
    )


def _neighbours(ladder: list[Reach], first: list[Reach]) -> list[Finding]:
    neighbours = [r for r in ladder if r.label == "neighbour"]
    tried = {r.address for r in ladder if r.label != "neighbour"}
    working = [r for r in neighbours if r.state in ("open", "refused")]  # a refusal crossed the network too
    ports = [r for r in working if r.address in tried]
    if ports:
        return [_step("ladder-other-port-works", Hop.NETWORK, first, ports, Severity.NOTE)]
    if working:
        return [_step("ladder-neighbour-works", Hop.NETWORK, first, working, Severity.NOTE)]
    if neighbours and all(r.state == "silent" for r in (*first, *neighbours)):
        return [_step("ladder-all-silent", Hop.NETWORK, [*first, *neighbours], [], Severity.NOTE)]
    return []


def _step(ident: str, hop: Hop, bad: list[Reach], good: list[Reach], severity: Severity) -> Finding:
    symptom = None
    if severity is not Severity.NOTE:
        silent = all(r.state in ("silent", "unreachable") for r in bad)
        symptom = _TIMEOUT if silent else _REFUSED
    return Finding(
        id=ident,
        hop=hop,
        subject=bad[0].where,
        severity=severity,
        symptom=symptom,
        args={
            "bad": ", ".join(r.where for r in bad),
            "good": ", ".join(r.where for r in good) or "-",
            "state": bad[0].state,
        },
        evidence=tuple(f for r in (*bad, *good) for f in r.facts),
    )


# --- other places, traces, odd connects ----------------------------------------------------------------------------


def _from_elsewhere(facts: Facts) -> list[Finding]:
    """The same destination from inside its cluster, and from beside the source."""
    found: list[Finding] = []
    # A pod may not be asked about itself over loopback: that says nothing of the way in.
    inside = [r for r in reaches(facts, "far") if r.label != "neighbour" and not r.address.startswith("127.")]
    for state, ident in (
        ("open", "tcp-open-from-inside"),
        ("refused", "tcp-refused-from-inside"),
        ("silent", "tcp-silent-from-inside"),
    ):
        if theirs := [r for r in inside if r.state == state]:
            found.append(_seen("far", ident, theirs))
    if reaches(facts, "source"):
        beside = [r for r in reaches(facts, "near") if r.label != "neighbour" and r.state == "open"]
        if beside:
            found.append(_seen("near", "tcp-open-from-beside", beside))
    return found


def _seen(where: str, ident: str, theirs: list[Reach]) -> Finding:
    fact = theirs[0].facts[0]
    hop = Hop.NETWORK if where == "far" else Hop.SOURCE_NODE
    args: dict[str, str | int | float] = {"address": theirs[0].where, "vantage": str(fact.vantage)}
    return _note(ident, hop, theirs[0].where, tuple(f for r in theirs for f in r.facts), args)


def _traces(facts: Facts, first: list[Reach]) -> list[Finding]:
    """The last hop that answered, where the trace did not arrive."""
    targets = {r.address for r in first}
    for trace in clear(facts, Trace):
        if trace.reached or trace.direction == "reverse":
            continue
        if trace.destination not in targets and rung_of(facts, trace.destination, None) in (None, "neighbour"):
            continue
        answered = [h for h in trace.hops if h.address]
        if answered:
            last = answered[-1]
            args: dict[str, str | int | float] = {"hop": last.address or "?", "ttl": last.ttl, "icmp": last.icmp or "-"}
            return [_note("tcp-trace-ends", Hop.NETWORK, trace.destination, (trace,), args)]
    return []


def _odd_connects(ladder: list[Reach]) -> list[Finding]:
    """Failures that belong to the client's own port: a reused one, or none left."""
    found: list[Finding] = []
    every = [f for r in ladder if r.label != "neighbour" for f in r.facts]
    reused = [f for f in every if f.source_port_reused and opens(f) < tries(f)]
    fresh = [f for f in every if not f.source_port_reused and opens(f)]
    if reused and fresh:
        found.append(
            Finding(
                id="tcp-reused-port-fails",
                hop=Hop.DEST_SERVICE,
                subject=reused[0].subject,
                symptom=_REFUSED,
                args={"address": reused[0].subject, "result": reused[0].result},
                evidence=(*reused, *fresh[:1]),
            )
        )
    if spent := [f for f in every if "EADDRNOTAVAIL" in (f.error or "")]:
        found.append(
            Finding(
                id="tcp-local-ports-used-up",
                hop=Hop.SOURCE_POD,
                subject=spent[0].subject,
                symptom=_TIMEOUT,
                args={"address": spent[0].subject},
                evidence=tuple(spent),
            )
        )
    return found


# --- repeated SYNs -------------------------------------------------------------------------------------------------

REPEAT_FINDINGS = ("tcp-syn-repeated", "tcp-first-syn-always-lost", "tcp-one-syn-repeated")
# A kernel repeats a SYN after 1, 3, 7, 15, 31 and 63 s; what comes on top is the round trip.
_REPEATS = (
    (990.0, 1600.0), (2990.0, 3700.0), (6990.0, 7900.0), (14990.0, 16100.0), (30990.0, 32400.0), (62990.0, 65000.0),
)  # fmt: skip


def _repeated(ms: float, base: float) -> bool:
    return any(low - 60 <= ms - base <= high for low, high in _REPEATS)


def judge_repeats(facts: Facts) -> Outcome:
    """Connects that opened exactly one or three seconds late: a first SYN was lost."""
    connects = [
        f
        for r in group(facts, clear(facts, TcpConnect))
        if r.label != "neighbour"
        for f in r.facts
        if f.result == "open" and (tries(f) == 1 or f.retransmits is not None) and opens(f)
    ]
    quickest = min((f.ms for f in connects), default=0.0)
    base = quickest if quickest < 400 else 0.0  # all of them late: the round trip is not known, and is small beside 1 s
    times: list[tuple[bool, Fact]] = []
    for fact in connects:
        counted = fact.retransmits  # the kernel's own count, where the prober could read it
        late = min(counted, opens(fact)) if counted is not None else int(tries(fact) == 1 and _repeated(fact.ms, base))
        times += [(index < late, fact) for index in range(opens(fact) if counted is not None else 1)]
    for series in facts.all(HttpSeries):
        where = place(facts.flow, series.vantage)
        if where not in ("source", "near") or (where == "near" and _to_a_stranger(facts, series)):
            continue
        answered = [x for x in series.samples if x.result == "response"]
        base = min((x.ms for x in answered), default=1000.0)
        if base < 400:  # else the application itself takes its time
            times += [(_repeated(x.ms, base), series) for x in answered if x.connection != "kept"]
    if len(times) < 2:
        if proxy := veiled_by(facts, TcpConnect):
            return Unknown(f"connects of the source pod end at {proxy}")
        return Skipped("fewer than two new connections were timed")
    delayed = [f for is_late, f in times if is_late]
    shown = tuple({id(f): f for f in delayed}.values())
    args: dict[str, str | int | float] = {"late": len(delayed), "of": len(times)}
    if not delayed:
        return Passed(tuple({id(f): f for _, f in times}.values())[:1])
    if len(delayed) == len(times) and len(times) >= 3:
        return settle([_late("tcp-first-syn-always-lost", Severity.ERROR, shown, args)])
    for address in dict.fromkeys(f.address for f in connects):  # one address of several, such as the Service's
        here = [is_late for is_late, f in times if isinstance(f, TcpConnect) and f.address == address]
        if len(here) >= 3 and all(here):
            own = tuple(f for f in shown if isinstance(f, TcpConnect) and f.address == address)
            return settle(
                [_late("tcp-first-syn-always-lost", Severity.ERROR, own, {"late": len(here), "of": len(here)})]
            )
    if len(delayed) >= 2 and len(delayed) / len(times) > 0.1:
        many = len(delayed) >= 5 and len(times) >= 20  # no chance of a few: clients wait seconds, time and again
        return settle([_late("tcp-syn-repeated", Severity.ERROR if many else Severity.WARNING, shown, args)])
    return settle([_late("tcp-one-syn-repeated", Severity.NOTE, shown, args)], shown)


def _to_a_stranger(facts: Facts, series: HttpSeries) -> bool:
    """What another pod sent to an address that is not on this flow's way."""
    address, port = split_host_port(series.address or urlsplit(series.url).netloc)
    if is_address(address):
        return rung_of(facts, address, port) is None
    return bool(facts.flow.name) and not address.startswith(facts.flow.name) and address != facts.flow.host


def _late(ident: str, severity: Severity, shown: tuple[Fact, ...], args: dict[str, str | int | float]) -> Finding:
    symptom = None if severity is Severity.NOTE else Symptom.INTERMITTENT_LATENCY
    return Finding(
        id=ident,
        hop=Hop.NETWORK,
        subject=shown[0].subject,
        severity=severity,
        symptom=symptom,
        args=args,
        evidence=shown,
    )


# --- capture -------------------------------------------------------------------------------------------------------

CAPTURE_FINDINGS = ("tcp-source-captured",)


def judge_capture(facts: Facts) -> Outcome:
    """Nothing stands between the source's prober and the network, or it is known what does."""
    seen = [i for i in facts.all(Interception) if place(facts.flow, i.vantage) == "source"]
    pods = facts.flow.source.pods if facts.flow.source else ()
    by = next((i.by or "a local proxy" for i in seen if i.captured), None) or next(
        (p.proxy for p in pods if p.proxy), None
    )
    if by is not None:
        subject = str(pods[0]) if pods else facts.flow.source_text
        captured = tuple(i for i in seen if i.captured)
        return Passed(captured, (_note("tcp-source-captured", Hop.SOURCE_PROXY, subject, captured, {"by": by}),))
    if seen:
        return Passed(tuple(seen))
    return Skipped("it was not looked whether a proxy captures the source's traffic")
