"""What keeps a Server, an authorisation or a route of Linkerd from letting a connection in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mcdoctor.policy.family import Compiled
from mcdoctor.policy.gateway_routes import GROUP, host_fits
from mcdoctor.policy.linkerd import KINDS, Grant, Linkerd, Server
from mcdoctor.policy.near.conditions import (
    Candidate,
    Condition,
    Edit,
    Fails,
    Path,
    Raw,
    address,
    append,
    at,
    dicts,
    inside,
    items,
    joined,
    mapping,
    outside,
    selector_fails,
)
from mcdoctor.policy.question import Http, Packet
from mcdoctor.policy.verdict import Decision, Direction, Ref
from mcdoctor.policy.world import Mesh, Pod

_ROUTES = ("HTTPRoute", "GRPCRoute")


def candidates(family: Compiled, packet: Packet, decision: Decision) -> Iterator[Candidate]:
    assert isinstance(family, Linkerd)
    here = family.world.clusters[family.cluster]
    objects = {obj.ref: obj.raw for kind in KINDS for obj in here.of(*kind)}
    if packet.direction is Direction.EGRESS:
        for by in decision.by:
            yield from _routes(objects, packet, "EgressNetwork", by.ref.name, {by.ref.namespace, _home(packet.source)})
        return
    pod = packet.destination
    if not isinstance(pod, Pod) or packet.port is None:
        return
    asking = _Asking(family, packet, objects)
    server = family.server(pod, packet.port)
    if asking.plain is not None:
        for by in decision.by:
            if server is not None and by.ref == server.ref and not server.access.endswith("-authenticated"):
                continue  # then it is for an authorisation to say who may
            path: Path = tuple(p.replace("~1", "/").replace("~0", "~") for p in by.pointer.split("/")[1:])
            yield Candidate(by.ref, path, {}, (asking.plain,), 1)
    yield from _servers(family, packet, pod, objects)
    if server is None:
        return
    yield from _routes(objects, packet, "Server", server.ref.name, {pod.namespace})
    for grant in family.grants.get(pod.namespace, ()):
        yield from asking.grant(grant, server)
    for ref in family.absent:
        if ref.namespace == pod.namespace:
            yield from asking.policy(ref, server)


def _home(end: object) -> str:
    return end.namespace if isinstance(end, Pod) else ""


# --- Servers ---------------------------------------------------------------------------------------------------------


def _servers(family: Linkerd, packet: Packet, pod: Pod, objects: Mapping[Ref, Raw]) -> Iterator[Candidate]:
    """Servers of the namespace that leave the pod or the port out, though authorisations may be waiting for them."""
    for server in family.servers.get(pod.namespace, ()):
        if server.pods is None:
            continue
        raw = objects[server.ref]
        path: Path = ("spec", "podSelector")
        fails, asked = selector_fails(raw, path, pod.labels, str(pod))
        number = {p.port for p in pod.named_ports(server.port, "TCP", init=True)} if isinstance(server.port, str) else {
            server.port}  # fmt: skip
        if packet.port not in number:
            fails.append(Condition(*_port(server, packet, pod, number), (Edit(("spec", "port"), packet.port),)))
            path = ("spec", "port")
        yield Candidate(server.ref, path, raw, tuple(fails), asked + 1)


def _port(server: Server, packet: Packet, pod: Pod, numbers: set[int]) -> tuple[str, str]:
    service = packet.service
    if service is not None and any(p.port in numbers and p.target != p.port for p in service.ports):
        return (
            f"the Server names the Service's port {server.port}; the proxy sees the pod's port {packet.port}",
            f"Server는 Service 포트 {server.port}을(를) 적었지만 proxy가 보는 것은 pod 포트 {packet.port}입니다",
        )
    if isinstance(server.port, str) and not numbers:
        return (
            f"{pod} has no container port named {server.port}",
            f"{pod}에 {server.port}(이)라는 이름의 컨테이너 포트가 없습니다",
        )
    return (
        f"the Server covers port {server.port}, the traffic is for {packet.port}",
        f"Server의 포트는 {server.port}이고 트래픽은 {packet.port}(으)로 갑니다",
    )


# --- authorisations --------------------------------------------------------------------------------------------------


class _Asking:
    """Authorisations asked about one packet: who calls, from where, with an identity or without."""

    def __init__(self, family: Linkerd, packet: Packet, objects: Mapping[Ref, Raw]) -> None:
        self.family = family
        self.packet = packet
        self.objects = objects
        client = packet.client if packet.client is not None else packet.source
        self.client = client if isinstance(client, Pod) else None
        self.ip = next(iter(packet.ips(packet.source)), None)
        identity = family.identity(packet)
        self.identity = identity if isinstance(identity, str) else None
        self.plain: Condition | None = None
        meshed = self.client is not None and Mesh.LINKERD in self.client.mesh
        concluded = packet.mtls is None and packet.principal is None and not meshed
        if self.client is not None and (packet.mtls is False or concluded):
            self.plain = Condition(
                f"{self.client} sends no identity of the mesh" + ("" if meshed else ": it is not in the mesh"),
                f"{self.client}은(는) mesh 신원을 보내지 않습니다" + ("" if meshed else "(mesh 밖에 있습니다)"),
                traffic={"mtls": True},
            )

    def grant(self, grant: Grant, server: Server) -> Iterator[Candidate]:
        if grant.ref.kind == "AuthorizationPolicy":
            yield from self.policy(grant.ref, server)
            return
        raw = self.objects[grant.ref]
        target: Fails = ([], 1)
        if grant.selector is not None:
            target = selector_fails(raw, ("spec", "server", "selector"), server.labels, str(server.ref))
        elif grant.target[2] != server.ref.name:
            missed = self._target(grant.target[2], server, ("spec", "server", "name"))
            if missed is None:
                return
            target = ([missed], 1)
        conditions, asked = joined(target, *self._client(raw, ("spec", "client")))
        yield Candidate(grant.ref, ("spec", "client"), raw, tuple(conditions), asked)

    def policy(self, ref: Ref, server: Server) -> Iterator[Candidate]:
        """An AuthorizationPolicy, also one that counts as absent for want of a reference."""
        raw = self.objects[ref]
        spec = mapping(raw, ("spec",))
        kind = str(at(spec, ("targetRef", "kind"))).lower()
        name = str(at(spec, ("targetRef", "name")))
        target: Fails = ([], 1)
        if kind == "server" and name != server.ref.name:
            missed = self._target(name, server, ("spec", "targetRef", "name"))
            if missed is None:
                return
            target = ([missed], 1)
        elif kind in ("httproute", "grpcroute"):
            own = {r.ref.name.lower() for r in self.family.routes if any(p.name == server.ref.name for p in r.parents)}
            if name.lower() not in own:
                return
        parts = [target]
        identity = False
        for number, item in enumerate(dicts(raw, ("spec", "requiredAuthenticationRefs"))):
            part = self._required(ref, raw, number, item)
            if part is None:
                return
            identity = identity or str(item.get("kind")).lower() != "networkauthentication"
            parts.append(part)
        if identity and self.plain is not None:
            parts.append(([self.plain], 0))
        conditions, asked = joined(*parts)
        yield Candidate(ref, ("spec",), raw, tuple(conditions), asked)

    def _target(self, name: str, server: Server, path: Path) -> Condition | None:
        """A name that no Server has; one that another Server has is meant for that one."""
        if any(each.ref.name == name for each in self.family.servers.get(server.ref.namespace, ())):
            return None
        return Condition(
            f"it is for Server {name}, which does not exist; port {self.packet.port} has Server {server.ref.name}",
            f"대상 Server {name}이(가) 없습니다. 포트 {self.packet.port}의 Server는 {server.ref.name}입니다",
            (Edit(path, server.ref.name),),
        )

    def _required(self, policy: Ref, raw: Raw, number: int, item: Any) -> Fails | None:
        """One required authentication; None when nothing is known that would meet it."""
        name, place = str(item.get("name")), str(item.get("namespace") or policy.namespace)
        kinds = {k.lower(): k for k in ("MeshTLSAuthentication", "NetworkAuthentication", "ServiceAccount")}
        kind = kinds.get(str(item.get("kind")).lower(), "")
        path: Path = ("spec", "requiredAuthenticationRefs", number)
        if kind == "ServiceAccount":
            if self.identity is None or self.client is None:
                return None
            if (name, place) == (self.client.service_account or "default", self.client.namespace):
                return [], 1
            account = self.client.service_account or "default"
            edits = (Edit((*path, "name"), account), Edit((*path, "namespace"), self.client.namespace))
            return [Condition(*self._who(f"the service account {place}/{name}"), edits)], 1
        other = Ref(policy.cluster, kind, place, name)
        there = next((ref for ref in self.objects if ref == other), None) or next(
            (r for r in self.objects if (r.kind, r.namespace, r.name) == (kind, place, name)), None
        )
        if there is None:
            return self._absent(other)
        body = self.objects[there]
        if kind == "NetworkAuthentication":
            return self._networks(body, ("spec", "networks"), there)
        return self._identities(body, ("spec",), there)

    def _absent(self, ref: Ref) -> Fails | None:
        """A reference to nothing: the authentication that would have been meant."""
        if ref.kind == "NetworkAuthentication":
            if self.ip is None:
                return None
            spec: dict[str, Any] = {"networks": [{"cidr": address(self.ip)}]}
        elif self.identity is not None and ref.kind == "MeshTLSAuthentication":
            spec = {"identities": [self.identity]}
        else:
            return None
        meta = {"namespace": ref.namespace, "name": ref.name}
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": ref.kind, "metadata": meta, "spec": spec}
        return [
            Condition(
                f"it requires {ref}, which does not exist: the policy counts as absent",
                f"요구하는 {ref}이(가) 없어 이 정책은 없는 것으로 취급됩니다",
                (Edit((), body, ref=ref),),
            )
        ], 1

    def _who(self, wanted: str) -> tuple[str, str]:
        return (
            f"the client is {self.identity}, the rule wants {wanted}",
            f"클라이언트는 {self.identity}이고, 규칙은 {wanted}을(를) 요구합니다",
        )

    def _identities(self, body: Raw, path: Path, ref: Ref | None) -> Fails | None:
        """`identities`, or references to accounts, of a MeshTLSAuthentication (`ref`) or of a ServerAuthorization."""
        if self.identity is None:
            return None
        names = list(map(str, items(body, (*path, "identities"))))
        accounts = dicts(body, (*path, "identityRefs" if ref else "serviceAccounts"))
        own = self.family.own
        home = ref.namespace if ref else ""
        for item in accounts:
            if str(item.get("kind", "ServiceAccount")).lower() == "namespace":
                names.append(own.account("*", str(item.get("name"))))
            else:
                names.append(own.account(str(item.get("name")), str(item.get("namespace") or home)))
        if any(_named(name, self.identity) for name in names):
            return [], 1
        texts = self._who(", ".join(names) or "none")
        if not accounts:
            edits = append(body, (*path, "identities"), self.identity)
        elif self.client is not None:
            item = {"name": self.client.service_account or "default", "namespace": self.client.namespace}
            item |= {"kind": "ServiceAccount"} if ref else {}
            edits = append(body, (*path, "identityRefs" if ref else "serviceAccounts"), item)
        else:
            return None
        return [Condition(*texts, tuple(Edit(e.path, e.value, ref=ref) for e in edits))], 1

    def _networks(self, body: Raw, path: Path, ref: Ref | None) -> Fails | None:
        if self.ip is None:
            return None
        ip, listed = self.ip, dicts(body, path)
        for item in listed:
            holes = items(item, ("except",))
            if inside(ip, item.get("cidr")) and not any(inside(ip, hole) for hole in holes):
                return [], 1
        for number, item in enumerate(listed):
            hits = [n for n, hole in enumerate(items(item, ("except",))) if inside(ip, hole)]
            if inside(ip, item.get("cidr")) and hits:
                cidr, hole = item["cidr"], item["except"][hits[0]]
                texts = (
                    f"{ip} is in {cidr} but excepted by {hole}",
                    f"{ip}은(는) {cidr}에 속하지만 except의 {hole}에서 제외됩니다",
                )
                edits = tuple(Edit((*path, number, "except", n), gone=True, ref=ref) for n in hits)
                return [Condition(*texts, edits)], 1
        blocks = ", ".join(str(item.get("cidr")) for item in listed)
        edits = append(body, path, {"cidr": address(ip)})
        return [Condition(*outside(str(ip), blocks), tuple(Edit(e.path, e.value, ref=ref) for e in edits))], 1

    def _client(self, raw: Raw, path: Path) -> Iterator[Fails]:
        """`client` of a ServerAuthorization; without networks it means the cluster's."""
        client = mapping(raw, path)
        networks: Path = (*path, "networks")
        if items(raw, networks):
            yield self._networks(raw, networks, None) or ([], 1)
        elif self.ip is not None and not self.family.own.networks.covers(self.ip):
            blocks = ", ".join(str(block) for block, _ in self.family.own.networks.blocks)
            yield [Condition(*outside(str(self.ip), blocks), (Edit(networks, [{"cidr": address(self.ip)}]),))], 1
        if client.get("unauthenticated") or "meshTLS" not in client:
            return
        if self.plain is not None:
            yield [self.plain], 1
        if not at(client, ("meshTLS", "unauthenticatedTLS")):
            yield self._identities(raw, (*path, "meshTLS"), None) or ([], 1)


def _named(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else pattern in ("*", name)


# --- routes ----------------------------------------------------------------------------------------------------------


def _routes(objects: Mapping[Ref, Raw], packet: Packet, kind: str, name: str, homes: set[str]) -> Iterator[Candidate]:
    """Requests that fit no route: every entry of `matches` of the routes whose parent this is."""
    http = packet.http
    if http is None:
        return
    for ref, raw in objects.items():
        if ref.kind not in _ROUTES or ref.namespace not in homes:
            continue
        parents = dicts(raw, ("spec", "parentRefs"))
        if not any(str(p.get("kind")).lower() == kind.lower() and p.get("name") == name for p in parents):
            continue
        hosts = _hosts(raw, http)
        for number, rule in enumerate(dicts(raw, ("spec", "rules"))):
            for entry in range(len(items(rule, ("matches",)))):
                path: Path = ("spec", "rules", number, "matches", entry)
                part = _match(raw, path, http)
                if part is not None:
                    conditions, asked = joined(hosts, part)
                    yield Candidate(ref, path, raw, tuple(conditions), asked)


def _hosts(raw: Raw, http: Http) -> Fails:
    listed = [str(h).lower() for h in items(raw, ("spec", "hostnames"))]
    host = (http.host or "").lower().partition(":")[0]
    if not listed or not host or any(host_fits(pattern, host) for pattern in listed):
        return [], 1
    names = ", ".join(listed)
    texts = f"the host is {host}, the route is for {names}", f"host는 {host}이고 route는 {names}용입니다"
    return [Condition(*texts, append(raw, ("spec", "hostnames"), host))], 1


def _match(raw: Raw, path: Path, http: Http) -> Fails | None:
    found: list[Condition] = []
    item = mapping(raw, path)
    wanted = item.get("path")
    bare = (http.path or "").partition("?")[0]
    if isinstance(wanted, dict) and http.path is not None and not _path(wanted, bare):
        shown = f"{wanted.get('type', 'PathPrefix')} {wanted.get('value', '/')}"
        texts = f"the path is {bare}, the route wants {shown}", f"경로는 {bare}이고 route는 {shown}을(를) 요구합니다"
        found.append(Condition(*texts, (Edit((*path, "path"), {"type": "Exact", "value": bare}),)))
    method = item.get("method")
    if isinstance(method, str) and http.method is not None and method != http.method:
        texts = (
            f"the method is {http.method}, the route wants {method}",
            f"method는 {http.method}이고 route는 {method}을(를) 요구합니다",
        )
        found.append(Condition(*texts, (Edit((*path, "method"), http.method),)))
    for number, header in enumerate(dicts(raw, (*path, "headers"))):
        name, value = str(header.get("name")), str(header.get("value"))
        given = http.headers.get(name.lower())
        whole = header.get("type") == "RegularExpression"
        if http.headers and (given is None or (given != value and not (whole and _whole(value, given)))):
            texts = f"the request has no header {name}: {value}", f"요청에 header {name}: {value}이(가) 없습니다"
            found.append(Condition(*texts, (Edit((*path, "headers", number), gone=True),)))
    if isinstance(method, dict):  # of a GRPCRoute
        parts = bare.split("/")
        if len(parts) < 3:
            return None
        for key, value in (("service", parts[1]), ("method", parts[2])):
            if method.get(key) not in (None, "", value):
                texts = (
                    f"the gRPC {key} is {value}, the route wants {method[key]}",
                    f"gRPC {key}은(는) {value}이고 route는 {method[key]}을(를) 요구합니다",
                )
                found.append(Condition(*texts, (Edit((*path, "method", key), value),)))
    return found, len(item)


def _path(wanted: Mapping[str, Any], path: str) -> bool:
    value = str(wanted.get("value", "/"))
    match wanted.get("type", "PathPrefix"):
        case "Exact":
            return path == value
        case "PathPrefix":
            prefix = value.rstrip("/")
            return path.rstrip("/") == prefix or path.startswith(prefix + "/")
        case _:
            return _whole(value, path)


def _whole(expression: str, text: str) -> bool:
    try:
        return re.fullmatch(expression, text) is not None
    except re.error:
        return False
