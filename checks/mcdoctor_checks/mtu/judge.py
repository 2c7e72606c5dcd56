"""Path MTU: what the sizes say, and which cause of a black hole the surroundings speak for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Capture,
    Fact,
    Interface,
    KubeObject,
    NodeFact,
    PacketFilter,
    PathMtu,
    Trace,
)
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Skipped, Unknown, settle
from mcdoctor.models.vantage import Vantage
from mcdoctor_checks.mtu.shape import Shape, settle_direction, shape
from mcdoctor_checks.sight import clear, mapping, place, rung_of, veiled_by
from mcdoctor_checks.tcp.reach import reaches

Args = dict[str, str | int | float]
PATH_FINDINGS = (
    "mtu-black-hole", "mtu-smaller-signalled", "mtu-loss-of-any-size", "mtu-datagrams-only", "mtu-only-this-sender",
    "mtu-frag-needed-seen", "mtu-no-frag-needed-captured", "mtu-icmp-dropped-by-rule", "mtu-icmp-not-allowed",
    "mtu-tunnel-overhead-explains", "mtu-tunnel-may-explain", "mtu-differs-between-nodes", "mtu-mss-too-large",
    "mtu-clamp-missing",
)  # fmt: skip


def sizes(facts: Facts) -> dict[str, list[Shape]]:
    """Shapes by direction: from the source's side forward, from either side in reverse."""
    by: dict[str, list[Shape]] = {"forward": [], "reverse": []}
    for direction in by:
        for places in (("source", "near"), ("far",)) if direction == "forward" else (("far", "source", "near"),):
            seen = [f for f in clear(facts, PathMtu, *places) if f.direction == direction]
            if places == ("far",):
                continue  # forward is what leaves the source
            known = [f for f in seen if _belongs(facts, f)] or seen
            by[direction] = [shape(f) for f in known]
    return by


def _belongs(facts: Facts, fact: PathMtu) -> bool:
    flow = facts.flow
    if fact.direction == "reverse":
        return True
    return fact.destination.rstrip(".") == flow.host or rung_of(facts, fact.destination, None) not in (
        None,
        "neighbour",
    )


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The settled shape of each direction, with the shapes it was settled from."""

    settled: dict[str, Shape]
    every: dict[str, list[Shape]]

    @property
    def holes(self) -> list[Shape]:
        return [s for s in self.settled.values() if s.form == "hole"]


def verdicts(facts: Facts) -> Verdicts:
    every = sizes(facts)
    lossy = _loses_small_packets(facts)
    settled: dict[str, Shape] = {}
    for direction, shapes in every.items():
        own = [s for s in shapes if place(facts.flow, s.fact.vantage) == "source"]
        if (found := settle_direction(own or shapes, lossy)) is not None:
            settled[direction] = found
    return Verdicts(settled, every)


def _loses_small_packets(facts: Facts) -> bool:
    """Whether SYNs, which are small, were lost on rungs that open: more than one in ten, repeated ones counted."""
    rungs = [r for r in reaches(facts, "source", "near") if r.opens]
    sent = sum(r.tries for r in rungs)
    lost = sum(r.failures["silent"] + sum(f.retransmits or 0 for f in r.facts) for r in rungs)
    return lost >= 2 and lost > 0.1 * sent


def judge_path(facts: Facts) -> Outcome:
    """Full-size packets arrive, or the sender is told of a smaller size."""
    seen = verdicts(facts)
    problems: list[Finding] = []
    for direction, found in seen.settled.items():
        if found.form == "hole":
            problems.append(_hole(found, direction))
        elif found.form == "any-size":
            problems.append(_any_size(found, direction))
        elif found.form == "signalled":
            args: Args = {"mtu": found.told or 0, "direction": direction, "destination": found.fact.destination}
            problems.append(note("mtu-smaller-signalled", found.fact.destination, [found.fact], args=args))
        problems += _only_datagrams(found, seen.every[direction])
    for hole in seen.holes:
        problems += surroundings(facts, hole, seen)
    if problems or seen.settled:
        return settle(problems, tuple(s.fact for s in seen.settled.values()))
    return _blind(facts, seen)


def _blind(facts: Facts, seen: Verdicts) -> Outcome:
    shapes = [s for theirs in seen.every.values() for s in theirs]
    if shapes and all(s.form == "nothing" and s.delivered is None for s in shapes):
        return Unknown("packets of no size were answered: nothing can be said about their size")
    if shapes:
        return Unknown("the means of measuring contradict one another, or too few packets were sent")
    rungs = [r for r in reaches(facts, "source", "near") if r.label != "neighbour"]
    if rungs and not any(r.opens for r in rungs):
        return Skipped("no connection opens: the size of packets is not the question")
    if proxy := veiled_by(facts, PathMtu):
        return Unknown(
            f"the source pod's TCP is captured by {proxy}: its segments end at the local proxy",
            command="mcdoctor diagnose … --probe pod",
        )
    if blind := facts.blind_to(PathMtu):
        return Unknown(blind[0].reason, blind[0].command)
    return Unknown("packets of growing size were not sent")


def _hole(found: Shape, direction: str) -> Finding:
    args: Args = {
        "delivered": found.delivered or 0,
        "lost": found.lost or 0,
        "direction": direction,
        "destination": found.fact.destination,
        "interface": found.fact.interface_mtu or "?",
        "protocol": found.fact.protocol or "?",
    }
    return Finding(
        id="mtu-black-hole",
        hop=Hop.NETWORK,
        subject=found.fact.destination,
        symptom=Symptom.LARGE_PAYLOAD_HANG,
        args=args,
        evidence=(found.fact,),
    )


def _any_size(found: Shape, direction: str) -> Finding:
    fact = found.fact
    lost = sum(s.result == "lost" for s in fact.sizes) + (fact.control_lost or 0)
    sent = len(fact.sizes) + (fact.control_sent or fact.control_lost or 0)
    rate = round(100 * lost / max(1, sent))
    return Finding(
        id="mtu-loss-of-any-size",
        hop=Hop.NETWORK,
        subject=fact.destination,
        severity=Severity.ERROR if rate >= 15 else Severity.WARNING,
        symptom=Symptom.INTERMITTENT_LATENCY,
        args={"percent": rate, "direction": direction, "destination": fact.destination},
        evidence=(fact,),
    )


def _only_datagrams(found: Shape, shapes: list[Shape]) -> list[Finding]:
    """UDP or ICMP lose large packets and TCP does not: a clamped segment size hides the hole from TCP."""
    if found.form not in ("fine", "signalled") or found.fact.protocol != "tcp":
        return []
    holes = [s for s in shapes if s.form == "hole"]
    if not holes:
        return []
    args: Args = {"delivered": holes[0].delivered or 0, "lost": holes[0].lost or 0}
    return [note("mtu-datagrams-only", found.fact.destination, [holes[0].fact, found.fact], args=args)]


def note(
    ident: str,
    subject: str,
    evidence: Iterable[Fact],
    /,
    hop: Hop = Hop.NETWORK,
    args: Args | None = None,
    **more: str | int | float,
) -> Finding:
    """A note of this room; `args` and `more` fill its sentence."""
    return Finding(
        id=ident,
        hop=hop,
        subject=subject,
        severity=Severity.NOTE,
        args={**(args or {}), **more},
        evidence=tuple(evidence),
    )


# --- which cause ---------------------------------------------------------------------------------------------------

_FRAG_NEEDED = re.compile(r"frag(mentation)?[- ]?need|need to frag|packet[- ]too[- ]big|unreachable.*mtu", re.I)
_ICMP = re.compile(r"icmp", re.I)
_DROP = re.compile(r"\b(drop|reject|deny|discard)\b", re.I)
_CLAMP = re.compile(r"TCPMSS|tcp option maxseg|clamp", re.I)


def surroundings(facts: Facts, hole: Shape, seen: Verdicts) -> list[Finding]:
    """Notes that part the causes of this black hole."""
    found: list[Finding] = []
    found += _frag_needed(facts, hole, seen)
    found += _icmp_rules(facts)
    found += _tunnel(facts, hole)
    found += _unequal(facts, hole)
    found += _clamp(facts, hole)
    others = [
        s
        for s in seen.every[hole.fact.direction]
        if s.form == "fine" and _place(s.fact) != _place(hole.fact) and (s.delivered or 0) >= (hole.lost or 0)
    ]
    if others:
        vantage = str(others[0].fact.vantage)
        found.append(note("mtu-only-this-sender", hole.fact.destination, [others[0].fact], vantage=vantage))
    return found


def _place(fact: Fact) -> Vantage:
    """Where it was seen from, whichever container of the pod: they share one network."""
    return replace(fact.vantage, container=None)


def _frag_needed(facts: Facts, hole: Shape, seen: Verdicts) -> list[Finding]:
    """The ICMP error exists (somebody else was told, or a capture saw it) and the sender does not act on it."""
    evidence: list[Fact] = []
    where = ""
    for capture in facts.all(Capture):
        texts = " ".join((capture.filter, *(capture.flags or ()), *(capture.first or ())))
        shown = " ".join((*(capture.flags or ()), *(capture.first or ())))
        if capture.matched and (_FRAG_NEEDED.search(shown) or (not shown and _asks_frag_needed(capture.filter))):
            evidence.append(capture)
            where = where or str(capture.vantage)
        elif not capture.matched and (_asks_frag_needed(texts) or _ICMP.search(capture.filter)):
            continue
    for other in seen.every[hole.fact.direction]:
        if other.told is not None and (other.fact != hole.fact):
            evidence.append(other.fact)
            where = where or str(other.fact.vantage)
    for trace in facts.all(Trace):
        if hop := next((h for h in trace.hops if h.icmp and _FRAG_NEEDED.search(h.icmp)), None):
            evidence.append(trace)
            where = where or str(hop.address)
    if evidence:
        return [note("mtu-frag-needed-seen", hole.fact.destination, evidence, vantage=where)]
    silent = [c for c in facts.all(Capture) if not c.matched and _asks_frag_needed(c.filter)]
    if silent:
        vantage = str(silent[0].vantage)
        return [note("mtu-no-frag-needed-captured", hole.fact.destination, silent, vantage=vantage)]
    return []


def _asks_frag_needed(text: str) -> bool:
    """A capture filter for ICMP, frag-needed among it."""
    return bool(_FRAG_NEEDED.search(text)) or bool(_ICMP.search(text))


def _icmp_rules(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    rules = [r for r in facts.all(PacketFilter) if _ICMP.search(r.rule) and _DROP.search(r.rule) and r.packets != 0]
    if rules:
        vantage = str(rules[0].vantage)
        found.append(note("mtu-icmp-dropped-by-rule", vantage, rules, rule=rules[0].rule[:120], vantage=vantage))
    for fact in facts.all(NodeFact):
        if re.search(r"security[_-]?group|firewall|nacl", fact.name, re.I) and fact.value:
            text = str(fact.value).lower()
            wide = re.search(r"all traffic|'-1'|\"-1\"|\ball\b", text)
            if "icmp" not in text and not wide:
                found.append(note("mtu-icmp-not-allowed", fact.name, [fact], name=fact.name, vantage=str(fact.vantage)))
                break
    return found


# Bytes that each encapsulation adds to an IPv4 packet; IPsec varies with cipher, padding and NAT traversal.
_OVERHEADS: dict[str, tuple[int, ...]] = {
    "vxlan": (50, 70), "geneve": (50, 54, 58, 66, 70), "ipip": (20,), "gre": (24, 28), "wireguard": (60, 80),
    "ipsec": tuple(range(52, 105)),
}  # fmt: skip
_NAMES = (
    (re.compile(r"vxlan|^flannel\.\d|^vx-|^cilium_vxlan"), "vxlan"), (re.compile(r"genev"), "geneve"),
    (re.compile(r"wireguard|^wg\d|^cilium_wg|^kube-wg|^submariner$"), "wireguard"),
    (re.compile(r"ipip|^tunl"), "ipip"), (re.compile(r"ipsec|xfrm|^vti|libreswan|strongswan"), "ipsec"),
    (re.compile(r"^gre|gretap"), "gre"),
)  # fmt: skip
_UNDERLAYS = (1500, 1460, 9001, 9000, 8500, 8951, 8896)


def tunnels(facts: Facts) -> dict[str, tuple[str, Fact | None, int | None]]:
    """Encapsulations on the way by system: what shows it, the fact, the device's own MTU."""
    found: dict[str, tuple[str, Fact | None, int | None]] = {}
    for interface in facts.all(Interface):
        if interface.up is False or place(facts.flow, interface.vantage) == "outside":
            continue
        if system := _system(interface.type or "") or _system(interface.name):
            found.setdefault(system, (interface.name, interface, interface.mtu))
    for layer in facts.flow.interconnect:
        if layer.layer == "l3":
            for word in re.split(r"[+, ]", layer.mode or ""):
                if system := _system(word):
                    found.setdefault(system, (f"{layer.system} ({word})", None, None))
    for cluster in (facts.flow.source_cluster, facts.flow.destination_cluster):
        for system, config in _configured(facts, cluster):
            found.setdefault(system, (config.subject, config, None))
    for fact in facts.all(NodeFact):
        if (
            "tunnel" in fact.name
            and isinstance(fact.value, (str, dict))
            and (system := _system(str(fact.value).lower()))
        ):
            found.setdefault(system, (f"{fact.name} {str(fact.value)[:60]}", fact, None))
    return found


def _system(text: str) -> str | None:
    return next((system for pattern, system in _NAMES if pattern.search(text)), None)


def _configured(facts: Facts, cluster: str) -> Iterable[tuple[str, KubeObject]]:
    """Encapsulation that the CNI is told to use."""
    for config in facts.objects("ConfigMap", cluster or None):
        data = {k: str(v) for k, v in mapping(config.body.get("data")).items()}
        if config.name == "cilium-config":
            if data.get("enable-wireguard") == "true":
                yield "wireguard", config
            if data.get("enable-ipsec") == "true":
                yield "ipsec", config
            tunnel = data.get("tunnel-protocol") or data.get("tunnel")
            if tunnel in ("vxlan", "geneve") and data.get("routing-mode", "tunnel") == "tunnel":
                yield tunnel, config
        elif config.name in ("kube-flannel-cfg", "canal-config") and '"vxlan"' in data.get("net-conf.json", ""):
            yield "vxlan", config
    for felix in facts.objects("FelixConfiguration.crd.projectcalico.org", cluster or None):
        if felix.spec.get("wireguardEnabled"):
            yield "wireguard", felix
    for pool in facts.objects("IPPool.crd.projectcalico.org", cluster or None):
        if pool.spec.get("vxlanMode") in ("Always", "CrossSubnet"):
            yield "vxlan", pool
        if pool.spec.get("ipipMode") in ("Always", "CrossSubnet"):
            yield "ipip", pool


def _tunnel(facts: Facts, hole: Shape) -> list[Finding]:
    """One encapsulation on the way takes just what is missing.

    The overhead of IPsec is a range wide enough to fit much: unless the tunnel itself was seen, it only may explain.
    """
    sender = hole.fact.interface_mtu
    physical = {i.mtu for i in facts.all(Interface) if i.type == "physical" and i.mtu}
    underlays = tuple(dict.fromkeys((*sorted(physical), *((sender,) if sender else ()), *_UNDERLAYS)))
    weak: list[Finding] = []
    for system, (shown, fact, device) in tunnels(facts).items():
        if device is not None and hole.admits(device) and (sender is None or sender > device):
            return [_explains(hole, system, shown, fact, (sender or device) - device, device)]
        fits = [
            (overhead, underlay - overhead)
            for underlay in underlays
            for overhead in _OVERHEADS[system]
            if hole.admits(underlay - overhead) and (sender is None or sender > underlay - overhead)
        ]
        if fits and (system != "ipsec" or fact is not None):
            return [_explains(hole, system, shown, fact, *fits[0])]
        if fits:
            args: Args = {"shown": shown, "overhead": fits[0][0], "left": fits[0][1]}
            weak.append(note("mtu-tunnel-may-explain", hole.fact.destination, [hole.fact], Hop.SOURCE_NODE, args))
    return weak[:1]


def _explains(hole: Shape, system: str, shown: str, fact: Fact | None, overhead: int, left: int) -> Finding:
    evidence = [f for f in (fact, hole.fact) if f is not None]
    named = shown if system in shown else f"{shown} ({system})"
    args: Args = {"system": system, "shown": named, "overhead": overhead, "left": left}
    return note("mtu-tunnel-overhead-explains", hole.fact.destination, evidence, Hop.SOURCE_NODE, args)


def _unequal(facts: Facts, hole: Shape) -> list[Finding]:
    """Nodes, or pods, of one cluster whose interfaces of one name differ, one as small as what gets through.

    A pod's eth0 and a node's are two things: that they differ is how overlays are.
    """
    by: dict[tuple[str | None, str, bool], dict[str, Interface]] = {}
    for interface in facts.all(Interface):
        owner = interface.vantage.node or (interface.vantage.pod if interface.name == "eth0" else None)
        if owner and _system(interface.type or "") is None and interface.name != "lo":
            key = (interface.vantage.cluster, interface.name, interface.vantage.pod is not None)
            by.setdefault(key, {})[owner] = interface
    for (_, name, _), theirs in by.items():
        values = {i.mtu for i in theirs.values()}
        if len(values) < 2:
            continue
        low, high = min(values), max(values)
        small = next(i for i in theirs.values() if i.mtu == low)
        large = next(i for i in theirs.values() if i.mtu == high)
        # The limit is the small interface itself, or that less what a tunnel takes of it.
        if hole.admits(low) or any(hole.admits(low - o) for os in _OVERHEADS.values() for o in os[:1]):
            return [
                note(
                    "mtu-differs-between-nodes",
                    name,
                    [small, large],
                    Hop.SOURCE_NODE,
                    name=name,
                    low=low,
                    high=high,
                    vantage=str(small.vantage),
                )
            ]
    return []


def _clamp(facts: Facts, hole: Shape) -> list[Finding]:
    """The segment size agreed on is larger than what the path carries, and nothing lowers it on the way."""
    found: list[Finding] = []
    mss = hole.fact.mss or next((f.mss for f in facts.all(PathMtu) if f.mss), None)
    if mss and hole.lost and max(mss) + 40 >= hole.lost:
        shown = ", ".join(map(str, mss))
        found.append(note("mtu-mss-too-large", hole.fact.destination, [hole.fact], mss=shown, lost=hole.lost))
        if len(mss) > 1 and min(mss) + 40 < hole.lost:
            found.append(note("mtu-clamp-missing", hole.fact.destination, [hole.fact], how="one direction is clamped"))
            return found
    rules = [r for r in facts.all(PacketFilter) if _CLAMP.search(r.rule)]
    backends = {str(n.value) for n in facts.all(NodeFact) if n.name == "iptables_backend"}
    idle = [r for r in rules if r.packets == 0 or (r.backend and backends and not _same_backend(r.backend, backends))]
    if rules and len(idle) == len(rules):
        found.append(
            note(
                "mtu-clamp-missing",
                hole.fact.destination,
                idle,
                Hop.SOURCE_NODE,
                how=f"the rule is there and matches nothing ({idle[0].backend or idle[0].table})",
            )
        )
    for fact in facts.all(NodeFact):
        absent = fact.value in (False, None, "absent", "none", "") or str(fact.value).lower() in ("false", "missing")
        if re.search(r"mss[_-]?clamp|clamp[_-]?mss|tcpmss", fact.name, re.I) and absent:
            found.append(note("mtu-clamp-missing", hole.fact.destination, [fact], Hop.SOURCE_NODE, how=fact.name))
    return found


def _same_backend(backend: str, active: set[str]) -> bool:
    kind = "legacy" if "legacy" in backend else "nft"
    return any(kind in a or (kind == "nft" and "nf_tables" in a) for a in active)
