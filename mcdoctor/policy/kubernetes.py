"""Kubernetes NetworkPolicy, networking.k8s.io/v1, in full.

Sources: kubernetes/kubernetes `staging/src/k8s.io/api/networking/v1/types.go`, `pkg/apis/networking/validation`, the
concept
page "Network Policies", `test/e2e/network/netpol`.

A policy isolates the pods it selects in the directions of its `policyTypes`; what any of the isolating policies' rules
admits is allowed, the rest is not. Calico and Cilium enforce the same objects among their own, so what they need is
public:
`selecting` and `admits`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeAlias

from mcdoctor.policy.addresses import Block, parse_block
from mcdoctor.policy.family import Compiled, Family
from mcdoctor.policy.fields import Field, Refused
from mcdoctor.policy.index import Chosen, Index
from mcdoctor.policy.ports import TRANSPORTS, NamedPort, PortRange, port_name_error
from mcdoctor.policy.question import Packet
from mcdoctor.policy.selectors import Selector, parse, text
from mcdoctor.policy.verdict import (
    SILENT,
    Branch,
    Deciding,
    Direction,
    Doubt,
    Effect,
    Match,
    Ref,
    Refusal,
    Ruling,
    Step,
    both,
    either,
)
from mcdoctor.policy.world import Datapath, DomainName, Object, Outside, Pod

KIND = ("networking.k8s.io", "NetworkPolicy")
LAYER = "kubernetes"


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Pods by selectors, as classes: bit n of `bits` is class `base` + n. Host-network pods are not among them.

    `maybe`: classes of namespaces whose labels are not known. `pods` None = missing podSelector, `namespaces` None =
    the
    policy's own namespace.
    """

    base: int
    bits: int
    maybe: int
    pods: Selector | None
    namespaces: Selector | None
    pointer: str


@dataclass(frozen=True, slots=True)
class BlockPeer:
    block: Block
    excepts: tuple[Block, ...]
    pointer: str


Peer: TypeAlias = PodPeer | BlockPeer
Port: TypeAlias = PortRange | NamedPort


@dataclass(frozen=True, slots=True)
class Rule:
    """`peers` None = anybody; `ports` None = any port of any protocol; pointers are the items' own."""

    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None
    pointer: str


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of a policy that isolates in it. `pointer`: what says so, resolvable in the object."""

    rules: tuple[Rule, ...]
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    ref: Ref
    subject: Selector
    ingress: Side | None
    egress: Side | None
    object: Object

    def side(self, direction: Direction) -> Side | None:
        return self.egress if direction is Direction.EGRESS else self.ingress


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a policy's rules admit a packet; `by` is the first rule that does or may, None when none does."""

    match: Match
    by: Deciding | None


# --- reading -------------------------------------------------------------------------------------------------------


def _cidr(field: Field) -> Block:
    try:
        return parse_block(field.text())
    except ValueError:
        raise Refused(field.pointer, f"{field.value!r} is not a valid CIDR") from None


def _peer(field: Field, namespace: str, cluster: str, index: Index) -> Peer:
    field.mapping()
    pods, namespaces, block = field["podSelector"], field["namespaceSelector"], field["ipBlock"]
    if block.present:
        if pods.present or namespaces.present:
            raise Refused(field.pointer, "may not specify both ipBlock and another peer")
        covered = _cidr(block["cidr"])
        excepts = []
        for item in block["except"].items():
            excepted = _cidr(item)
            if not covered.covers(excepted) or covered == excepted:
                raise Refused(item.pointer, f"must be a strict subset of {block['cidr'].value}")
            excepts.append(excepted)
        return BlockPeer(covered, tuple(excepts), field.pointer)
    if not pods.present and not namespaces.present:
        raise Refused(field.pointer, "must specify a peer")
    pod_selector, namespace_selector = parse(pods), parse(namespaces)
    room = index.rooms.get((cluster, namespace))
    if not namespaces.present:
        bits = room.select(pod_selector) & ~room.host_network if room else 0
        return PodPeer(room.base if room else 0, bits, 0, pod_selector, None, field.pointer)
    chosen = index.in_namespaces(cluster, namespace_selector)
    those = index.pods(cluster, pod_selector) & ~index.host_network()
    return PodPeer(
        0,
        chosen.bits & those,
        chosen.maybe & those,
        pod_selector if pods.present else None,
        namespace_selector,
        field.pointer,
    )


def _port(field: Field) -> Port:
    protocol = field["protocol"].choice(TRANSPORTS, "TCP")
    port, end = field["port"], field["endPort"]
    if not port.present:
        if end.present:
            raise Refused(end.pointer, "may not be specified when `port` is not specified")
        return PortRange(protocol)
    if type(port.value) is str:
        if end.present:
            raise Refused(end.pointer, "may not be specified when `port` is non-numeric")
        error = port_name_error(port.value)
        if error:
            raise Refused(port.pointer, error)
        return NamedPort(protocol, port.value)
    low = port.integer()
    if not 1 <= low <= 65535:
        raise Refused(port.pointer, f"{low} is not between 1 and 65535")
    if not end.present:
        return PortRange(protocol, low, low)
    high = end.integer()
    if high < low:
        raise Refused(end.pointer, "must be greater than or equal to `port`")
    if high > 65535:
        raise Refused(end.pointer, f"{high} is not between 1 and 65535")
    return PortRange(protocol, low, high)


def _rules(field: Field, peers: str, namespace: str, cluster: str, index: Index) -> tuple[Rule, ...]:
    found = []
    for item in field.items():
        item.mapping()
        listed = tuple(_peer(peer, namespace, cluster, index) for peer in item[peers].items())
        ports = tuple(_port(port) for port in item["ports"].items())
        found.append(Rule(listed or None, ports or None, item.pointer))
    return tuple(found)


def read(obj: Object, index: Index) -> Policy:
    """Parse and compile one object. Raises Refused where the API server would."""
    whole = Field(obj.raw)
    if whole["apiVersion"].value != "networking.k8s.io/v1":
        raise Refused("/apiVersion", f"no kind NetworkPolicy in {whole['apiVersion'].value!r}")
    spec = whole["spec"]
    types = spec["policyTypes"]
    listed = types.texts()
    if len(listed) > 2:
        raise Refused(types.pointer, "may not specify more than two policyTypes")
    for item in types.items():
        item.choice(("Ingress", "Egress"))
    namespace, cluster = obj.ref.namespace, obj.ref.cluster
    subject = parse(spec["podSelector"])
    ingress = _rules(spec["ingress"], "from", namespace, cluster, index)
    egress = _rules(spec["egress"], "to", namespace, cluster, index)
    wanted = listed or (("Ingress", "Egress") if egress else ("Ingress",))

    def side(name: str, section: Field, rules: tuple[Rule, ...]) -> Side | None:
        if name not in wanted:
            return None
        if section.present:
            return Side(rules, section.pointer)
        if name in listed:
            return Side(rules, f"{types.pointer}/{listed.index(name)}")
        return Side(rules, spec.pointer if spec.present else "")

    return Policy(
        obj.ref, subject, side("Ingress", spec["ingress"], ingress), side("Egress", spec["egress"], egress), obj
    )


# --- matching ------------------------------------------------------------------------------------------------------


def _block_match(peer: BlockPeer, packet: Packet, datapath: Datapath) -> Match:
    end = packet.peer
    if isinstance(end, DomainName):
        if peer.block.prefix == 0 and not peer.excepts:
            return True
        return Doubt(f"which addresses {end} resolves to", unseen=False)
    ips = packet.ips(end)
    if not ips:
        if isinstance(end, Pod) and not end.host_network and datapath.ipblock_covers_pods is False:
            return False
        return Doubt(f"the address of {end} is not known")
    inside = [ip in peer.block and not any(ip in block for block in peer.excepts) for ip in ips]
    if not any(inside):
        named = packet.service if packet.direction is Direction.EGRESS else None
        if named is not None and datapath.ipblock_covers_pods is None:
            own = [ip for ip in named.ips if ip in peer.block and not any(ip in block for block in peer.excepts)]
            if own:
                return Doubt(f"plugins differ in whether an ipBlock sees {own[0]} of {named} or the address behind it")
        return False
    found: Match = True
    if not all(inside) and len({ip.version for ip in ips}) > 1:
        found = Doubt(f"which address of {end} is used ({', '.join(map(str, ips))})", unseen=False)
    if isinstance(end, Outside):
        return found
    if isinstance(end, Pod) and not end.host_network:
        covers, what = datapath.ipblock_covers_pods, "pods"
        if end.cluster != packet.cluster:
            covers = False  # a remote pod whose identity is known: ClusterMesh, where a CIDR never matches managed pods
    else:
        covers, what = datapath.ipblock_covers_nodes, "nodes"
    if covers is True:
        return found
    if covers is False:
        return False
    return Doubt(f"whether ipBlock covers {what} differs between CNI plugins, and this one's is not known")


def _peer_match(peer: Peer, packet: Packet, datapath: Datapath, number: int) -> Match:
    match peer:
        case BlockPeer():
            return _block_match(peer, packet, datapath)
        case PodPeer():
            local = number - peer.base
            if number < 0 or local < 0:
                return False
            if peer.bits >> local & 1:
                return True
            if peer.maybe >> local & 1:
                end = packet.peer
                assert isinstance(end, Pod)
                return Doubt(f"the labels of namespace {end.namespace} are not known (no Namespace object was given)")
            return False


def port_match(port: Port, packet: Packet) -> Match:
    """Does a rule's port item cover the packet? Named ports are looked up on the destination pod."""
    if packet.protocol != port.protocol:
        return False
    match port:
        case PortRange():
            if packet.port is None and (port.low > 1 or port.high < 65535):
                return Doubt("which port is used", unseen=False)
            return packet.port is None or port.low <= packet.port <= port.high
        case NamedPort():
            end = packet.destination
            if not isinstance(end, Pod):
                return False
            numbers = [p.port for p in end.named_ports(port.name, port.protocol)]
            if numbers and packet.port is None:
                return Doubt("which port is used", unseen=False)
            return packet.port in numbers


def ports_match(rule: Rule, packet: Packet) -> Match:
    if rule.ports is None:
        return True
    found: Match = False
    for port in rule.ports:
        found = either(found, port_match(port, packet))
        if found is True:
            break
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Kubernetes:
    """The NetworkPolicies of one cluster, by namespace and name.

    `selected[direction]`: class number -> the policies that isolate it, in the same order.
    """

    index: Index
    cluster: str
    datapath: Datapath
    policies: tuple[Policy, ...]
    selected: Mapping[Direction, Mapping[int, tuple[Policy, ...]]]
    refusals: tuple[Refusal, ...]
    reached: dict[tuple[int, Direction, str, int], Chosen] = field(default_factory=dict)
    """Memo of `reach` for rules without a port name on the subject, by id of the rule."""

    def selecting(self, packet: Packet) -> Sequence[Policy]:
        """The policies that isolate the packet's subject in its direction; none for anything but a pod with a
        network of its own.
        """
        subject = packet.subject
        if not isinstance(subject, Pod) or subject.host_network or subject.cluster != self.cluster:
            return ()
        return self.selected[packet.direction].get(self.index.class_of[subject], ())

    def peer_number(self, packet: Packet) -> int:
        """Class number of the far pod, -1 when it is no pod that selectors can see."""
        end = packet.peer
        if isinstance(end, Pod) and end.cluster == self.cluster and not end.host_network:
            return self.index.class_of[end]
        return -1

    def admits(self, policy: Policy, packet: Packet) -> Admission:
        """Do this policy's rules for the packet's direction admit it?"""
        side = policy.side(packet.direction)
        if side is None:
            return Admission(False, None)
        number = self.peer_number(packet)
        doubtful: Admission | None = None
        match: Match
        for rule in side.rules:
            covered = ports_match(rule, packet)
            if covered is False:
                continue
            if rule.peers is None:
                match, pointer = covered, rule.pointer
                if match is True:
                    return Admission(True, Deciding(policy.ref, pointer, packet.direction, "allow"))
                doubtful = doubtful or Admission(match, Deciding(policy.ref, pointer, packet.direction, "allow"))
                continue
            for peer in rule.peers:
                match = both(covered, _peer_match(peer, packet, self.datapath, number))
                if match is False:
                    continue
                found = Admission(match, Deciding(policy.ref, peer.pointer, packet.direction, "allow"))
                if match is True:
                    return found
                doubtful = doubtful or found
        return doubtful or Admission(False, None)

    def row(self, number: int, direction: Direction, protocol: str, port: int) -> Chosen | None:
        """The classes that class `number` may exchange this traffic with; None when nothing isolates it.

        For many pairs at once; exact for pods with a network of their own, host-network classes are left out.
        """
        if not self.datapath.enforces_network_policy:
            return None
        policies = self.selected[direction].get(number)
        return None if policies is None else self.union(policies, number, direction, protocol, port)

    def union(self, policies: Sequence[Policy], number: int, direction: Direction, protocol: str, port: int) -> Chosen:
        """What the rules of these policies admit for a subject class, as classes of this cluster."""
        surely = maybe = 0
        for policy in policies:
            side = policy.side(direction)
            for rule in side.rules if side else ():
                reach = self._reach(rule, number, direction, protocol, port)
                surely |= reach.bits
                maybe |= reach.maybe
        return Chosen(surely, maybe & ~surely)

    def _reach(self, rule: Rule, number: int, direction: Direction, protocol: str, port: int) -> Chosen:
        key = (id(rule), direction, protocol, port)
        found = self.reached.get(key)
        if found is not None:
            return found
        index = self.index
        mask = index.cluster(self.cluster) & ~index.host_network()
        depends = False
        if rule.ports is not None:
            covered = 0
            for item in rule.ports:
                if item.protocol != protocol:
                    continue
                match item:
                    case PortRange():
                        covered = mask if item.low <= port <= item.high else covered
                    case NamedPort() if direction is Direction.EGRESS:
                        covered |= index.with_port(item.name, protocol, port)
                    case NamedPort():
                        depends = True
                        if index.with_port(item.name, protocol, port) >> number & 1:
                            covered = mask
                if covered == mask:
                    break
            mask &= covered
        if not mask:
            found = Chosen(0)
        elif rule.peers is None:
            found = Chosen(mask)
        else:
            surely = maybe = 0
            for peer in rule.peers:
                match peer:
                    case PodPeer():
                        surely |= peer.bits << peer.base
                        maybe |= peer.maybe << peer.base
                    case BlockPeer():
                        inside = index.within(peer.block)
                        for block in peer.excepts:
                            inside &= ~index.within(block)
                        if self.datapath.ipblock_covers_pods is True:
                            surely |= inside
                        elif self.datapath.ipblock_covers_pods is None:
                            maybe |= inside
            surely &= mask
            found = Chosen(surely, maybe & mask & ~surely)
        if not depends:
            self.reached[key] = found
        return found

    def places(self, namespace: str, name: str = "") -> tuple[int, int]:
        """Where in `policies` those of a namespace stand, or the one of this name: from, and up to but without."""
        if not name:
            of = attrgetter("ref.namespace")
            return bisect_left(self.policies, namespace, key=of), bisect_right(self.policies, namespace, key=of)
        both_names = attrgetter("ref.namespace", "ref.name")
        key = (namespace, name)
        return bisect_left(self.policies, key, key=both_names), bisect_right(self.policies, key, key=both_names)

    def with_policy(self, obj: Object) -> Kubernetes:
        """The same cluster with one policy added or replaced; raises Refused where the API server would refuse it."""
        policy = read(obj, self.index)
        at, end = self.places(obj.ref.namespace, obj.ref.name)
        policies = (*self.policies[:at], policy, *self.policies[end:])
        room = self.index.rooms.get((self.cluster, obj.ref.namespace))
        selected = {d: dict(by_class) for d, by_class in self.selected.items()}
        if room is not None:
            first, last = self.places(obj.ref.namespace)
            local = policies[first : last + len(policies) - len(self.policies)]
            for number in range(room.base, room.base + room.count):
                for found in selected.values():
                    found.pop(number, None)
            for direction, found in _lists(self.index, self.cluster, local).items():
                selected[direction].update(found)
        return Kubernetes(self.index, self.cluster, self.datapath, policies, selected, self.refusals)

    def enforce(self, packet: Packet) -> Ruling:
        policies = self.selecting(packet)
        if not policies:
            return SILENT
        if not self.datapath.enforces_network_policy:
            note = Step(LAYER, f"{self.datapath.cni} does not enforce NetworkPolicy: {len(policies)} without effect")
            return Ruling((Branch(Effect.NEXT, why=note.text),), (note,))
        direction = packet.direction
        admissions = [(policy, self.admits(policy, packet)) for policy in policies]
        trace = tuple(
            Step(
                LAYER,
                f"{policy.ref} isolates {packet.subject} for {direction}; "
                + ("no rule matches" if a.by is None else "a rule matches" if a.match is True else "a rule may match"),
                policy.ref,
                a.by.pointer if a.by else "",
            )
            for policy, a in admissions
        )
        allowing = tuple(a.by for _, a in admissions if a.match is True and a.by)
        if allowing:
            return Ruling((Branch(Effect.ALLOW, allowing, f"{allowing[0].ref} allows it"),), trace)
        refusing = tuple(isolation(policy, direction) for policy in policies)
        names = ", ".join(str(policy.ref) for policy in policies)
        denied = Branch(
            Effect.DENY,
            refusing,
            f"{names} isolate{'s' if len(policies) == 1 else ''} {packet.subject} and no rule matches",
        )
        branches = [
            Branch(Effect.ALLOW, (a.by,), f"{a.by.ref} may allow it", (a.match,))
            for _, a in admissions
            if a.by and isinstance(a.match, Doubt)
        ]
        if packet.icmp is not None and self.datapath.icmp_isolated is None and not branches:
            why = Doubt(
                "NetworkPolicy cannot express ICMP: most plugins drop it for an isolated pod, some always allow it"
            )
            branches.append(Branch(Effect.ALLOW, (), "the plugin always allows ICMP", (why,)))
        if branches:
            doubts = tuple(d for b in branches for d in b.doubts)
            denied = Branch(denied.effect, denied.by, denied.why, doubts)
        return Ruling((*branches, denied), trace)


def isolation(policy: Policy, direction: Direction) -> Deciding:
    """How a policy refuses what none of its rules admits."""
    side = policy.side(direction)
    assert side is not None
    return Deciding(
        policy.ref, side.pointer, direction, "deny", implicit=True, note="isolates the pod, no rule matches"
    )


def _lists(index: Index, cluster: str, policies: Sequence[Policy]) -> dict[Direction, dict[int, tuple[Policy, ...]]]:
    """Direction -> class number -> the policies that isolate it, in the order given."""
    lists: dict[Direction, dict[int, list[Policy]]] = {Direction.INGRESS: {}, Direction.EGRESS: {}}
    for policy in policies:
        room = index.rooms.get((cluster, policy.ref.namespace))
        if room is None:
            continue
        bits = room.select(policy.subject) & ~room.host_network
        sides = [d for d in Direction if policy.side(d) is not None]
        while bits:
            low = bits & -bits
            number = room.base + low.bit_length() - 1
            for direction in sides:
                lists[direction].setdefault(number, []).append(policy)
            bits ^= low
    return {d: {n: tuple(found) for n, found in by_class.items()} for d, by_class in lists.items()}


def compile_cluster(index: Index, cluster: str, earlier: Mapping[str, Compiled]) -> Kubernetes:
    world = index.world.clusters[cluster]
    policies: list[Policy] = []
    refusals: list[Refusal] = []
    for obj in sorted(world.of(*KIND), key=lambda o: (o.ref.namespace, o.ref.name)):
        try:
            policies.append(read(obj, index))
        except Refused as refused:
            refusals.append(Refusal(obj.ref, refused.pointer, refused.why))
    for obj in world.of("extensions", "NetworkPolicy"):
        refusals.append(
            Refusal(
                obj.ref, "/apiVersion", "extensions/v1beta1 is gone since Kubernetes 1.22; use networking.k8s.io/v1"
            )
        )
    selected = _lists(index, cluster, policies)
    return Kubernetes(index, cluster, world.datapath, tuple(policies), selected, tuple(refusals))


def describe(peer: Peer) -> str:
    """A peer in words: "pods app=web in namespaces team=a"."""
    match peer:
        case BlockPeer():
            return f"{peer.block}" + (f" except {', '.join(map(str, peer.excepts))}" if peer.excepts else "")
        case PodPeer():
            where = "the policy's namespace" if peer.namespaces is None else f"namespaces with {text(peer.namespaces)}"
            return f"pods with {text(peer.pods or ())} in {where}"


FAMILY = Family("kubernetes", frozenset({KIND, ("extensions", "NetworkPolicy")}), compile_cluster)
