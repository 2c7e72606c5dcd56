"""Edits of Linkerd: an authorisation of exactly this client at a Server, with the Server where the port has none.

A meshed client is named by its service account, another one by its address.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcdoctor.policy.edits.edit import (
    ITEM,
    POLICY,
    Edit,
    Raw,
    Wanted,
    Words,
    addresses,
    edited,
    free_name,
    identity,
    names,
    new_object,
    spec_of,
    workload,
)
from mcdoctor.policy.gateway_routes import GROUP
from mcdoctor.policy.linkerd import Linkerd
from mcdoctor.policy.linkerd import Server as CompiledServer
from mcdoctor.policy.world import Mesh, Pod

_AUTHORIZATION, _GRANT = (GROUP, "AuthorizationPolicy"), (GROUP, "ServerAuthorization")
_TLS, _NETWORK, _SERVER = (GROUP, "MeshTLSAuthentication"), (GROUP, "NetworkAuthentication"), (GROUP, "Server")


def edits(wanted: Wanted) -> Iterator[Edit]:
    family = wanted.engine.compiled[wanted.packet.cluster]["linkerd"]
    subject = wanted.packet.destination
    if not isinstance(family, Linkerd) or not wanted.ingress or not isinstance(subject, Pod):
        return
    server = family.server(subject, wanted.packet.port)
    if server is not None:
        client = _client(wanted)
        if client is not None:
            yield from _known(wanted, family, server, subject.namespace, client)
            yield _granted(wanted, server, subject.namespace, client)
        yield from _authorised(wanted, subject.namespace, server.ref.name, ())
    elif wanted.packet.port is not None:
        yield from _with_server(wanted, family, subject)


def _client(wanted: Wanted) -> Pod | None:
    """The caller, where the connection carries its identity."""
    packet = wanted.packet
    client = packet.client or packet.source
    if (
        packet.principal is None
        and packet.mtls is not False
        and isinstance(client, Pod)
        and Mesh.LINKERD in client.mesh
    ):
        return client
    return None


def _account(client: Pod) -> Raw:
    return {"namespace": client.namespace, "name": client.service_account}


def _granted(wanted: Wanted, server: CompiledServer, namespace: str, client: Pod) -> Edit:
    spec = {"server": {"name": server.ref.name}, "client": {"meshTLS": {"serviceAccounts": [_account(client)]}}}
    name = free_name(wanted, names(wanted, namespace, _GRANT))
    raw = new_object(f"{GROUP}/v1beta1", _GRANT[1], namespace, name, spec)
    who = f"{client.namespace}/{client.service_account}"
    told = Words(
        f"a ServerAuthorization of {server.ref.name} for {who}",
        f"{server.ref.name} Server에 {who} service account를 허용하는 ServerAuthorization을 새로 만듭니다",
    )
    return Edit((raw,), True, told, POLICY)


def _known(wanted: Wanted, family: Linkerd, server: CompiledServer, namespace: str, client: Pod) -> Iterator[Edit]:
    """The account added to an authorisation that the Server has already."""
    targeting = {g.ref for g in family.grants.get(namespace, ()) if g.target[1:] == ("Server", server.ref.name)}
    who = f"{client.namespace}/{client.service_account}"
    referenced = set()
    for obj in wanted.cluster.of(*_AUTHORIZATION):
        if obj.ref in targeting:
            for item in spec_of(obj).get("requiredAuthenticationRefs") or ():
                if item.get("kind") == _TLS[1]:
                    referenced.add((item.get("namespace") or obj.ref.namespace, item.get("name")))

    def grant(raw: Raw) -> None:
        tls = raw["spec"]["client"]["meshTLS"]
        tls["serviceAccounts"] = [*(tls.get("serviceAccounts") or []), _account(client)]

    def know(raw: Raw) -> None:
        spec = raw["spec"]
        if spec.get("identityRefs"):
            spec["identityRefs"] += [{"kind": "ServiceAccount", **_account(client)}]
        else:
            settings = family.settings(client.cluster) if client.cluster in family.world.clusters else family.own
            spec["identities"] += [settings.account(client.service_account, client.namespace)]

    for obj in wanted.cluster.of(*_GRANT):
        if obj.ref in targeting and (raw := edited(obj, grant)) is not None:
            yield Edit((raw,), False, _added(who, str(obj.ref)), ITEM)
    for obj in wanted.cluster.of(*_TLS):
        if (obj.ref.namespace, obj.ref.name) in referenced and (raw := edited(obj, know)) is not None:
            yield Edit((raw,), False, _added(who, str(obj.ref)), ITEM)


def _added(who: str, where: str) -> Words:
    return Words(f"add {who} to {where}", f"{where}에 {who} service account를 추가합니다")


def _authorised(wanted: Wanted, namespace: str, server: str, more: tuple[Raw, ...]) -> Iterator[Edit]:
    """An AuthorizationPolicy of the Server with the authentication it requires."""
    client = _client(wanted)
    kind, who = _TLS, ""
    spec: Raw
    if client is not None:
        who = f"{client.namespace}/{client.service_account}"
        spec = {"identityRefs": [{"kind": "ServiceAccount", **_account(client)}]}
    elif wanted.packet.principal is not None:
        who = wanted.packet.principal
        spec = {"identities": [who]}
    else:
        ips = addresses(wanted)
        if not ips:
            wanted.reasons.append(
                Words(
                    f"the address of {wanted.packet.source} is not known",
                    f"{wanted.packet.source}의 주소를 알 수 없습니다",
                )
            )
            return
        kind, who = _NETWORK, ", ".join(map(str, ips))
        spec = {"networks": [{"cidr": f"{ip}/{32 if ip.version == 4 else 128}"} for ip in ips]}
    name = free_name(wanted, names(wanted, namespace, _AUTHORIZATION, kind))
    required = {"group": GROUP, "kind": kind[1], "name": name}
    policy = new_object(
        f"{GROUP}/v1alpha1",
        _AUTHORIZATION[1],
        namespace,
        name,
        {
            "targetRef": {"group": GROUP, "kind": "Server", "name": server},
            "requiredAuthenticationRefs": [required],
        },
    )
    authentication = new_object(f"{GROUP}/v1alpha1", kind[1], namespace, name, spec)
    added = ", ".join(raw["kind"] for raw in (*more, authentication))
    told = Words(
        f"an AuthorizationPolicy of Server {server} for {who}, with its {added}",
        f"{server} Server에 {who} 호출자를 허용하는 AuthorizationPolicy와 {added}을(를) 새로 만듭니다",
    )
    yield Edit((policy, authentication, *more), True, told, POLICY + 1 + len(more))


def _with_server(wanted: Wanted, family: Linkerd, subject: Pod) -> Iterator[Edit]:
    """A Server for the port, which keeps what the default policy admits, and the authorisation at it."""
    labels = identity(wanted.engine, subject)
    if not labels:
        return
    default = family.default_policy(subject)[0]
    name = f"{workload(subject)}-{wanted.packet.port}"[:60].rstrip("-.")
    taken = {o.ref.name for o in wanted.cluster.of(*_SERVER) if o.ref.namespace == subject.namespace}
    if name in taken:
        return
    spec = {"podSelector": {"matchLabels": labels}, "port": wanted.packet.port, "accessPolicy": default}
    server = new_object(f"{GROUP}/v1beta3", _SERVER[1], subject.namespace, name, spec)
    yield from _authorised(wanted, subject.namespace, name, (server,))
