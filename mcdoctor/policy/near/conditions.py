"""What a rule asks for and a packet does not meet, in words, with the change of rule or traffic that would meet it.

A family's module walks the rules that were meant to admit and yields a `Candidate` for every way one of them may match;
it proposes, the engine disposes: whether a change helps is asked by evaluating again (see the package).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mcdoctor.policy.addresses import Ip, host_block, parse_block, parse_ip
from mcdoctor.policy.fields import escape
from mcdoctor.policy.ports import NamedPort, PortRange
from mcdoctor.policy.question import Packet
from mcdoctor.policy.selectors import Requirement, holds
from mcdoctor.policy.verdict import Direction, Ref
from mcdoctor.policy.world import End, Outside, Pod, World

Path: TypeAlias = tuple[str | int, ...]
Raw: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Edit:
    """One place of an object set to `value`, or taken away (`gone`). A list's length as the last index appends to it.

    `ref` None: the object of the rule itself. Missing mappings and lists on the way are made.
    """

    path: Path
    value: Any = None
    gone: bool = False
    ref: Ref | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing asked for that does not hold: why, in English and Korean, and what would make it hold.

    `traffic`: fields of the packet that would have to be otherwise, where the rule is right and the sender is not.
    """

    en: str
    ko: str
    edits: tuple[Edit, ...] = ()
    traffic: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way a rule may match: `asked` conditions, of which `fails` do not hold. `raw` is the rule's object."""

    ref: Ref
    path: Path
    raw: Raw
    fails: tuple[Condition, ...]
    asked: int


Fails: TypeAlias = tuple[list[Condition], int]
"""The conditions that fail, and how many there are."""


# --- objects -------------------------------------------------------------------------------------------------------


def pointer_of(path: Path) -> str:
    return "".join(f"/{escape(str(part))}" for part in path)


def path_in(raw: Any, pointer: str) -> Path:
    """The path of a pointer that resolves in the object."""
    found: list[str | int] = []
    for part in pointer.split("/")[1:]:
        key: str | int = int(part) if isinstance(raw, list) else part.replace("~1", "/").replace("~0", "~")
        found.append(key)
        raw = raw[key]
    return tuple(found)


def at(raw: Any, path: Path) -> Any:
    """What is at the path; None where it leads nowhere."""
    for part in path:
        if isinstance(raw, dict):
            raw = raw.get(part)
        elif isinstance(raw, list) and isinstance(part, int) and 0 <= part < len(raw):
            raw = raw[part]
        else:
            return None
    return raw


def items(raw: Any, path: Path) -> list[Any]:
    found = at(raw, path)
    return found if isinstance(found, list) else []


def dicts(raw: Any, path: Path) -> list[dict[str, Any]]:
    """The items of a list that are mappings; others keep their place as {}."""
    return [item if isinstance(item, dict) else {} for item in items(raw, path)]


def mapping(raw: Any, path: Path = ()) -> dict[str, Any]:
    found = at(raw, path)
    return found if isinstance(found, dict) else {}


def apply(raw: Any, edits: Sequence[Edit]) -> Any:
    """The object with the edits applied; the one given is left as it is."""
    for edit in edits:
        if not edit.gone:
            raw = _put(raw, edit.path, edit.value)
    last_first = sorted((e.path for e in edits if e.gone), key=lambda p: (p[:-1], p[-1]), reverse=True)
    for path in last_first:
        raw = _without(raw, path)
    return raw


def _put(raw: Any, path: Path, value: Any) -> Any:
    """The value put at the path; what is of another shape than the path needs counts as absent, as for `at`."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(first, int):
        listed = list(raw) if isinstance(raw, list) else []
        listed[first : first + 1] = [_put(listed[first] if first < len(listed) else None, rest, value)]
        return listed
    held = raw if isinstance(raw, dict) else {}
    return {**held, first: _put(held.get(first), rest, value)}


def _without(raw: Any, path: Path) -> Any:
    first, rest = path[0], path[1:]
    if isinstance(raw, list) and isinstance(first, int) and first < len(raw):
        kept = [] if not rest else [_without(raw[first], rest)]
        return [*raw[:first], *kept, *raw[first + 1 :]]
    if isinstance(raw, dict) and first in raw:
        if rest:
            return {**raw, first: _without(raw[first], rest)}
        return {key: value for key, value in raw.items() if key != first}
    return raw


def append(raw: Any, path: Path, *values: Any) -> tuple[Edit, ...]:
    count = len(items(raw, path))
    return tuple(Edit((*path, count + number), value) for number, value in enumerate(values))


# --- words and checks that families share ----------------------------------------------------------------------------


def address(ip: Ip) -> str:
    """The CIDR of one address."""
    return str(host_block(ip))


def inside(ip: Ip, text: object) -> bool:
    """Is the address in a CIDR or equal to an address as the object has it?"""
    if not isinstance(text, str):
        return False
    try:
        return ip in (parse_block(text) if "/" in text else host_block(parse_ip(text)))
    except ValueError:
        return False


def peer_ip(packet: Packet) -> Ip | None:
    return next(iter(packet.ips(packet.peer)), None)


def traffic_of(packet: Packet) -> str:
    if packet.icmp is not None:
        kind = "" if packet.icmp.type is None else f" type {packet.icmp.type}"
        return f"ICMPv{packet.icmp.family}{kind}"
    return f"{packet.protocol} {packet.port}" if packet.port is not None else packet.protocol


def hidden(world: World, packet: Packet) -> Pod | None:
    """The pod of another cluster behind an address at the far end."""
    if not isinstance(packet.peer, Outside):
        return None
    if packet.direction is Direction.INGRESS:
        client = packet.client
        return client if client is not None and client.cluster != packet.cluster else None
    others = (cluster.by_ip.get(packet.peer.ip) for name, cluster in world.clusters.items() if name != packet.cluster)
    return next((owner for owner in others if isinstance(owner, Pod)), None)


def remote_selector(pod: Pod, end: End, edits: tuple[Edit, ...]) -> Condition:
    return Condition(
        f"the selectors fit, but {pod} is in cluster {pod.cluster} and is seen as {end}: "
        "selectors never match remote pods",
        f"selector는 맞지만 {pod}은(는) 클러스터 {pod.cluster}에 있고 {end}(으)로 보입니다. "
        "selector는 다른 클러스터의 pod와 일치하지 않습니다",
        edits,
    )


def selected(
    packet: Packet, end: End, client: Pod | None, by_address: tuple[Edit, ...], fails_of: Callable[[Pod], Fails | None]
) -> Fails | None:
    """What fails of selectors for an end; None where they cannot mean it.

    `client`: the pod behind an address that hides it; `fails_of`: what fails of the selectors for a pod; `by_address`:
    the edits that admit the address instead, for ends that selectors never match.
    """
    if client is not None:
        fails = fails_of(client)
        return None if fails is None or fails[0] else ([remote_selector(client, end, by_address)], fails[1])
    if not isinstance(end, Pod) or end.cluster != packet.cluster:
        return None
    fails = fails_of(end)
    if not end.host_network or fails is None:
        return fails
    en = f"the selectors fit {end}, but it is on the host network and counts as its node"
    ko = f"selector는 {end}에 맞지만 host network를 쓰므로 노드로 취급됩니다"
    return None if fails[0] else ([Condition(en, ko, by_address)], fails[1])


def wrong_value(who: str, key: str, value: str | None, wanted: str) -> tuple[str, str]:
    """(en, ko) of a label that is missing (None) or has another value."""
    if value is None:
        return (
            f"{who} has no label {key}, the rule wants {wanted}",
            f"{who}에 label {key}이(가) 없고, 규칙은 {wanted}을(를) 요구합니다",
        )
    return (
        f"{who} has {key}={value}, the rule wants {wanted}",
        f"{who}의 label은 {key}={value}이고, 규칙은 {wanted}을(를) 요구합니다",
    )


def selector_fails(
    raw: Any, path: Path, labels: Mapping[str, str], who: str, hint: tuple[str, str] = ("", "")
) -> Fails:
    """A LabelSelector at `path` against labels. `hint` is added to every text."""
    found: list[Condition] = []
    count = 0

    def failed(requirement: Requirement, edit: Edit) -> None:
        value = labels.get(requirement.key)
        en, ko = wrong_value(who, requirement.key, value, str(requirement))
        found.append(Condition(en + hint[0], ko + hint[1], (edit,)))

    for key, value in mapping(raw, (*path, "matchLabels")).items():
        count += 1
        requirement = Requirement(key, "In", (str(value),))
        if not holds(requirement, labels):
            place = (*path, "matchLabels", key)
            failed(requirement, Edit(place, labels[key]) if key in labels else Edit(place, gone=True))
    for number, item in enumerate(items(raw, (*path, "matchExpressions"))):
        count += 1
        place = (*path, "matchExpressions", number)
        values = tuple(map(str, items(item, ("values",))))
        requirement = Requirement(str(item.get("key")), str(item.get("operator")), values)
        if not holds(requirement, labels):
            if requirement.operator == "In" and requirement.key in labels:
                failed(requirement, append(raw, (*place, "values"), labels[requirement.key])[0])
            else:
                failed(requirement, Edit(place, gone=True))
    return found, count


def joined(*parts: Fails) -> Fails:
    return [condition for fails, _ in parts for condition in fails], sum(asked for _, asked in parts)


def port_text(port: PortRange | NamedPort) -> str:
    protocol = port.protocol or "any protocol"
    match port:
        case NamedPort():
            return f"{protocol} {port.name}"
        case PortRange(low=1, high=65535):
            return protocol
        case PortRange():
            return f"{protocol} {port.low}" if port.low == port.high else f"{protocol} {port.low}-{port.high}"


def ports_text(ports: Sequence[PortRange | NamedPort], packet: Packet) -> tuple[str, str]:
    """(en, ko): why a rule's ports leave the packet out; the usual mistakes first."""
    service, asked = packet.service, traffic_of(packet)
    for port in ports:
        match port:
            case PortRange() if (
                packet.port and port.protocol not in (None, packet.protocol) and port.low <= packet.port <= port.high
            ):
                return (
                    f"the rule is for {port.protocol}, the traffic is {packet.protocol}",
                    f"규칙은 {port.protocol}용이고 트래픽은 {packet.protocol}입니다",
                )
            case PortRange() if service is not None and any(
                p.port == port.low == port.high and p.target != p.port for p in service.ports
            ):
                return service_port(port.low, packet)
            case NamedPort():
                end = packet.destination
                if isinstance(end, Pod) and not end.named_ports(port.name, None):
                    return (
                        f"{end} has no container port named {port.name}",
                        f"{end}에 {port.name}(이)라는 이름의 컨테이너 포트가 없습니다",
                    )
                if not isinstance(end, Pod):
                    return (
                        f"the port name {port.name} cannot be resolved for {end}, which is no pod here",
                        f"{end}은(는) 여기 있는 pod가 아니므로 포트 이름 {port.name}을(를) 풀 수 없습니다",
                    )
            case _:
                pass
    return covers(", ".join(map(port_text, ports)) or "no port", asked)


def service_port(number: int, packet: Packet) -> tuple[str, str]:
    return (
        f"the rule names the Service's port {number}; policies see the pod's port {packet.port}",
        f"규칙은 Service 포트 {number}을(를) 적었지만 정책이 보는 것은 pod 포트 {packet.port}입니다",
    )


def covers(offered: str, asked: str) -> tuple[str, str]:
    return f"the rule covers {offered}, the traffic is {asked}", f"규칙의 범위는 {offered}, 트래픽은 {asked}입니다"


def outside(what: str, blocks: str) -> tuple[str, str]:
    return f"{what} is not in {blocks}", f"{what}은(는) {blocks}에 속하지 않습니다"
