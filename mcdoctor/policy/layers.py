"""How families compose at one enforcing point, for one packet.

    exempt:   loopback, the node's own traffic to its pods
    network:  what forwards packets in the kernel. One system, or several which must all allow:
                kubernetes   admin tier (ANP/CNP) -> NetworkPolicy -> baseline tier (BANP/CNP) -> allow
                cilium       admin tier -> Cilium's repository (CNP, CCNP and NetworkPolicy as one union, denies first)
                             -> baseline tier -> allow
                calico       its tiers (kube-admin with ANP/CNP, default with NetworkPolicy, kube-baseline) -> profiles
    mesh:     istio and linkerd, each of which must allow; they see the mesh identity, the network layers never do

Layers that must all allow are joined by `conjunction`. Which systems are active: `datapath.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mcdoctor.policy.addresses import Ip
from mcdoctor.policy.family import Compiled
from mcdoctor.policy.question import Packet
from mcdoctor.policy.verdict import (
    Branch,
    Decision,
    Direction,
    Doubt,
    Effect,
    Ruling,
    Step,
    Verdict,
    chain,
    conjunction,
    settle,
)
from mcdoctor.policy.world import Datapath, Node, Pod


@runtime_checkable
class Tiered(Compiled, Protocol):
    """The admin family: one tier before NetworkPolicy, one after. `isolated`: a NetworkPolicy isolates the subject."""

    def admin(self, packet: Packet) -> Ruling: ...

    def baseline(self, packet: Packet) -> Ruling: ...


OPEN = Branch(Effect.ALLOW, why="no policy applies")


@dataclass(frozen=True, slots=True)
class LayerDecision:
    """One system's settled answer; `layer` is "kubernetes", "cilium", "calico", "istio", "linkerd" or "exempt"."""

    layer: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class PointDecision:
    """All layers of one enforcing point for one packet."""

    packet: Packet
    verdict: Verdict
    layers: tuple[LayerDecision, ...]
    wire: Packet | None = None
    mesh: bool = True


def loopback(ip: Ip) -> bool:
    return ip.value >> 24 == 127 if ip.version == 4 else ip.value == 1


def exempt(packet: Packet, datapath: Datapath) -> str | None:
    """Why no network policy is asked at all, or None."""
    source, destination = packet.source, packet.destination
    if any(loopback(ip) for ip in packet.ips(destination)):
        return "loopback traffic never leaves the pod"
    if datapath.asks_for_own_node:
        return None
    if packet.direction is Direction.INGRESS and isinstance(destination, Pod) and not destination.host_network:
        if isinstance(source, Node) and destination.node == source.name and source.cluster == destination.cluster:
            return f"a node always reaches its own pods ({source} runs {destination})"
        home = destination.cluster, destination.node
        if isinstance(source, Pod) and source.host_network and source.node and (source.cluster, source.node) == home:
            return f"a node always reaches its own pods ({source} is on the host network of {destination.node})"
    return None


def uncertain(packet: Packet) -> Doubt | None:
    """A point on which plugins differ whatever the policies say: a refusal is then not certain."""
    source, destination = packet.source, packet.destination
    match source, destination:
        case Pod(), Pod() if source.key == destination.key:
            return Doubt(
                "whether a pod may reach itself through its own address differs between plugins (kubernetes#95879)"
            )
        case Pod(host_network=False), Node():
            own = destination.name
        case Pod(host_network=False), Pod(host_network=True):
            own = destination.node
        case _:
            return None
    if packet.direction is Direction.EGRESS and own and own == source.node:
        return Doubt("the documentation promises traffic between a pod and its own node, plugins differ for egress")
    return None


def systems(compiled: Mapping[str, Compiled], packet: Packet, datapath: Datapath) -> Iterator[tuple[str, Ruling]]:
    """The network systems that must all allow, each with its ruling."""
    admin = compiled.get("admin")
    tiers: Tiered | None = admin if isinstance(admin, Tiered) else None
    for name in datapath.systems:
        family = compiled.get(name) or compiled.get("kubernetes")
        if family is None:
            continue
        if name == "calico" and name in compiled:  # its tiers hold the admin kinds themselves
            yield name, chain([family.enforce(packet)], OPEN)
        else:
            yield name, chain(_stack(tiers, family.enforce, packet), OPEN)


def _stack(tiers: Tiered | None, enforce: Callable[[Packet], Ruling], packet: Packet) -> Iterator[Ruling]:
    if tiers is not None:
        yield tiers.admin(packet)
    yield enforce(packet)
    if tiers is not None:
        yield tiers.baseline(packet)


def decide(
    compiled: Mapping[str, Compiled],
    packet: Packet,
    datapath: Datapath,
    wire: Packet | None = None,
    *,
    mesh: bool = True,
) -> PointDecision:
    """Everything `packet.cluster` has to say about one packet in one direction.

    `wire`: what the network layers see where a mesh encapsulates (HBONE to 15008); the mesh layers see `packet`.
    """
    seen = wire or packet
    found: list[LayerDecision] = []
    reason = exempt(seen, datapath)
    if reason is not None:
        step = Step("exempt", reason)
        found.append(LayerDecision("exempt", Decision(Verdict.ALLOWED, (), reason, (), (step,))))
    else:
        doubt = uncertain(seen)
        for name, ruling in systems(compiled, seen, datapath):
            decision = settle(ruling)
            isolated = decision.verdict is Verdict.DENIED and all(d.implicit for d in decision.by)
            if doubt is not None and isolated and name == "kubernetes":
                decision = Decision(Verdict.UNKNOWN, decision.by, doubt.why, (doubt,), decision.trace)
            found.append(LayerDecision(name, decision))
    for name in ("istio", "linkerd") if mesh else ():
        family = compiled.get(name)
        if family is not None:
            decision = settle(family.enforce(packet))
            if decision.trace or decision.by or decision.verdict is not Verdict.ALLOWED:
                found.append(LayerDecision(name, decision))
    return PointDecision(packet, conjunction(layer.decision.verdict for layer in found), tuple(found), wire, mesh)
