"""Linkerd, naively: one connection against raw objects, straight from the documents, nothing shared with the engine.

linkerd.io/2/reference/authorization-policy and egress-network, the comments of linkerd2's `policy-controller` and of
linkerd2-proxy's `server-policy`. `world` makes the clusters it is compared on: two namespaces, four pods of which three
are meshed, every kind and every field.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from reference import kubernetes as np

Objects = list[dict[str, Any]]
ALLOWED, DENIED = "allowed", "denied"
DEFAULT = "config.linkerd.io/default-inbound-policy"
MODES = (
    "all-unauthenticated",
    "all-authenticated",
    "cluster-unauthenticated",
    "cluster-authenticated",
    "deny",
    "audit",
)
SUFFIX = "serviceaccount.identity.linkerd.cluster.local"
CLUSTER_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
METHODS, PATHS = ("GET", "POST"), ("/", "/a", "/a/b", "/ab")


def of(objects: Objects, kind: str, namespace: str | None = None) -> Objects:
    return [
        o for o in objects if o["kind"] == kind and namespace in (None, o["metadata"].get("namespace"))
    ]  # fmt: skip


def meshed(end: Any) -> bool:
    return not isinstance(end, str) and any(c["name"] == "linkerd-proxy" for c in end["spec"]["containers"])


def identity(pod: dict[str, Any]) -> str:
    return f"{pod['spec']['serviceAccountName']}.{pod['metadata']['namespace']}.{SUFFIX}"


def within(networks: list[dict[str, Any]], address: str) -> bool:
    ip = ipaddress.ip_address(address)
    for network in networks:
        excepted = any(ip in ipaddress.ip_network(e) for e in network.get("except") or [])
        if ip in ipaddress.ip_network(network["cidr"], strict=False) and not excepted:
            return True
    return False


def in_cluster(address: str) -> bool:
    return within([{"cidr": c} for c in CLUSTER_NETWORKS], address)


def known_as(names: list[str], who: str) -> bool:
    return any(n == "*" or n == who or (n.startswith("*.") and who.endswith(n[1:])) for n in names)


def opens(mode: str, source: Any) -> bool:
    """A default policy or an accessPolicy."""
    if mode == "deny":
        return False
    if mode.startswith("cluster-") and not in_cluster(np.addresses(source)[0]):
        return False
    return meshed(source) if mode.endswith("-authenticated") else True


def server_authorization(policy: dict[str, Any], source: Any) -> bool:
    client, home = policy["spec"]["client"], policy["metadata"]["namespace"]
    networks = client.get("networks") or [{"cidr": c} for c in CLUSTER_NETWORKS]
    if not within(networks, np.addresses(source)[0]):
        return False
    if client.get("unauthenticated"):
        return True
    tls = client["meshTLS"]
    if not meshed(source):
        return False
    if tls.get("unauthenticatedTLS"):
        return True
    names = list(tls.get("identities") or [])
    names += [f"{a['name']}.{a.get('namespace', home)}.{SUFFIX}" for a in tls.get("serviceAccounts") or []]
    return known_as(names, identity(source))


def authorization_policy(policy: dict[str, Any], source: Any, objects: Objects) -> bool:
    """ "Authentications required … all of these must be satisfied"; a reference that does not resolve: ignored."""
    home, fits = policy["metadata"]["namespace"], True
    for reference in policy["spec"].get("requiredAuthenticationRefs") or []:
        place, name = reference.get("namespace", home), reference["name"]
        if reference["kind"] == "ServiceAccount":
            fits = fits and meshed(source) and identity(source) == f"{name}.{place}.{SUFFIX}"
            continue
        found = [o for o in of(objects, reference["kind"], place) if o["metadata"]["name"] == name]
        if not found:
            return False
        spec = found[0]["spec"]
        if reference["kind"] == "NetworkAuthentication":
            fits = fits and within(spec["networks"], np.addresses(source)[0])
            continue
        names = list(spec.get("identities") or [])
        for each in spec.get("identityRefs") or []:
            if each["kind"] == "ServiceAccount":
                names.append(f"{each['name']}.{each.get('namespace', place)}.{SUFFIX}")
            else:
                names.append(f"*.{each['name']}.{SUFFIX}")
        fits = fits and meshed(source) and known_as(names, identity(source))
    return fits


def authorised(server: dict[str, Any], route: dict[str, Any] | None, source: Any, objects: Objects) -> bool:
    home, name = server["metadata"]["namespace"], server["metadata"]["name"]
    if opens(server["spec"].get("accessPolicy", "deny"), source):
        return True
    for policy in of(objects, "ServerAuthorization", home):
        target = policy["spec"]["server"]
        if "name" in target:
            chosen = target["name"] == name
        else:
            chosen = np.selects(target["selector"], server["metadata"].get("labels") or {})
        if chosen and server_authorization(policy, source):
            return True
    for policy in of(objects, "AuthorizationPolicy", home):
        target = policy["spec"]["targetRef"]
        chosen = target["kind"] == "Namespace" or (target["kind"] == "Server" and target["name"] == name)
        if target["kind"] in ("HTTPRoute", "GRPCRoute") and route is not None:
            group = route["apiVersion"].partition("/")[0]
            chosen = (target["group"], target["kind"], target["name"]) == (
                group, route["kind"], route["metadata"]["name"],
            )  # fmt: skip
        if chosen and authorization_policy(policy, source, objects):
            return True
    return False


def path_length(wanted: dict[str, Any] | None, path: str) -> int | None:
    if wanted is None:
        return 1
    value = wanted["value"]
    if wanted["type"] == "Exact":
        return len(value) if path == value else None
    if value == "/":
        return 1
    value, path = value.rstrip("/"), path.rstrip("/")
    return len(value) if path == value or path.startswith(value + "/") else None


def best_route(routes: Objects, method: str, path: str) -> dict[str, Any] | None:
    """The longest path, then a match on the method; then the oldest route, then by (group, kind, name)."""
    order = lambda r: (r["metadata"].get("creationTimestamp", "~"), r["apiVersion"].partition("/")[0], r["metadata"]["name"])  # fmt: skip # noqa: E731
    best: tuple[tuple[int, bool], dict[str, Any]] | None = None
    for route in sorted(routes, key=order):
        for rule in route["spec"]["rules"]:
            for match in rule.get("matches") or [{}]:
                length = path_length(match.get("path"), path)
                if length is None or match.get("method", method) != method:
                    continue
                rank = (length, "method" in match)
                if best is None or rank > best[0]:
                    best = (rank, route)
    return best[1] if best else None


def probes(pod: dict[str, Any], port: int) -> list[str]:
    return [
        c["livenessProbe"]["httpGet"]["path"]
        for c in pod["spec"]["containers"]
        if "livenessProbe" in c and c["livenessProbe"]["httpGet"]["port"] == port
    ]


def ports(listed: str) -> set[int]:
    found: set[int] = set()
    for item in listed.split(","):
        low, _, high = item.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def ingress(objects: Objects, source: Any, destination: Any, port: int, method: str, path: str) -> str:
    """What the destination's proxy does with an HTTP request. `source`: a raw pod or an address."""
    if isinstance(destination, str) or not meshed(destination):
        return ALLOWED
    home, labels = destination["metadata"]["namespace"], destination["metadata"]["labels"]
    noted = destination["metadata"]["annotations"]
    if "config.linkerd.io/skip-inbound-ports" in noted and port in ports(noted["config.linkerd.io/skip-inbound-ports"]):
        return ALLOWED
    opaque_ports = ports(noted.get("config.linkerd.io/opaque-ports", "25,587,3306,4444,5432,6379,9300,11211"))
    opaque = port in opaque_ports and meshed(source)
    covering = []
    for server in of(objects, "Server", home):
        wanted = server["spec"]["port"]
        if isinstance(wanted, str):
            named = {
                p["containerPort"] for c in destination["spec"]["containers"] for p in c["ports"] if p["name"] == wanted
            }
        else:
            named = {wanted}
        if np.selects(server["spec"]["podSelector"], labels) and port in named:
            covering.append(server)
    probe = method == "GET" and path in probes(destination, port)
    if not covering:
        namespace = of(objects, "Namespace")
        annotations = next(n for n in namespace if n["metadata"]["name"] == home)["metadata"]["annotations"]
        mode = noted.get(DEFAULT) or annotations.get(DEFAULT) or "all-unauthenticated"
        demanded = noted.get("config.linkerd.io/proxy-require-identity-inbound-ports")
        if demanded and port in ports(demanded):
            mode = mode.replace("unauthenticated", "authenticated")
        return ALLOWED if opens(mode, source) or (probe and not opaque) else DENIED
    server = min(covering, key=lambda s: (s["metadata"].get("creationTimestamp", "~"), s["metadata"]["name"]))
    protocol = server["spec"].get("proxyProtocol", "unknown")
    opaque = opaque or protocol in ("opaque", "TLS")
    attached = [
        r
        for r in of(objects, "HTTPRoute", home)
        if any(p["name"] == server["metadata"]["name"] for p in r["spec"]["parentRefs"])
    ]
    route = None
    if attached and not opaque and protocol != "gRPC":
        route = best_route(attached, method, path)
        if route is None:
            return DENIED
    elif probe and not opaque and protocol != "gRPC":
        return ALLOWED
    return ALLOWED if authorised(server, route, source, objects) else DENIED


def egress(objects: Objects, source: Any, destination: Any, port: int) -> str:
    """What the source's proxy does with a connection to an address outside."""
    if not meshed(source) or not isinstance(destination, str):
        return ALLOWED
    home = source["metadata"]["namespace"]
    listed = of(objects, "EgressNetwork", home) or of(objects, "EgressNetwork", "linkerd-egress")
    ip, found = ipaddress.ip_address(destination), []
    for network in listed:
        whole = "0.0.0.0/0" if ip.version == 4 else "::/0"
        inside = [c for c in CLUSTER_NETWORKS if ipaddress.ip_network(c).version == ip.version]
        networks = network["spec"].get("networks") or [{"cidr": whole, "except": inside}]
        sizes = [
            ipaddress.ip_network(n["cidr"]).num_addresses
            for n in networks
            if ip.version == ipaddress.ip_network(n["cidr"]).version and within([n], destination)
        ]
        if sizes:
            found.append((min(sizes), network["metadata"]["name"], network))
    if not found or min(found, key=lambda f: f[:2])[2]["spec"]["trafficPolicy"] == "Allow":
        return ALLOWED
    chosen = min(found, key=lambda f: f[:2])[2]["metadata"]
    for route in of(objects, "TCPRoute", home):
        for parent in route["spec"]["parentRefs"]:
            same = (parent["name"], parent["namespace"]) == (chosen["name"], chosen["namespace"])
            if same and parent["port"] == port:
                return ALLOWED
    return DENIED


# --- worlds ----------------------------------------------------------------------------------------------------------

G, W = "policy.linkerd.io", "gateway.networking.k8s.io"
APPS, NAMES = ("web", "api"), ("s1", "s2", "s3")
CIDRS = ("10.0.0.0/8", "10.0.0.0/30", "0.0.0.0/0", "198.51.100.0/24", "10.0.0.1", "fd00::/8")


def _object(rng: random.Random, version: str, kind: str, name: str, spec: Any, home: str = "") -> dict[str, Any]:
    meta: dict[str, Any] = {"namespace": home or rng.choice(("n0", "n0", "n0", "n1")), "name": name}
    if rng.random() < 0.5:
        meta["creationTimestamp"] = f"2026-01-0{rng.randint(1, 3)}T00:00:00Z"
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def _network(rng: random.Random) -> dict[str, Any]:
    network: dict[str, Any] = {"cidr": rng.choice(CIDRS)}
    if network["cidr"] in ("10.0.0.0/8", "0.0.0.0/0") and rng.random() < 0.4:
        network["except"] = [rng.choice(("10.0.0.0/31", "10.0.0.3/32"))]
    return network


def _names(rng: random.Random) -> list[str]:
    pool = ("*", f"a1.n0.{SUFFIX}", f"a2.n1.{SUFFIX}", f"*.n0.{SUFFIX}", f"*.{SUFFIX}", "*.0.x", "nobody")
    return rng.sample(pool, rng.randint(1, 2))


def _account(rng: random.Random) -> dict[str, Any]:
    return {"name": rng.choice(("a1", "a2"))} | ({"namespace": rng.choice(("n0", "n1"))} if rng.random() < 0.5 else {})


def _client(rng: random.Random) -> dict[str, Any]:
    client: dict[str, Any] = {"networks": [_network(rng)]} if rng.random() < 0.4 else {}
    kind = rng.random()
    if kind < 0.3:
        return client | {"unauthenticated": True}
    if kind < 0.5:
        return client | {"meshTLS": {"unauthenticatedTLS": True}}
    if kind < 0.75:
        return client | {"meshTLS": {"identities": _names(rng)}}
    return client | {"meshTLS": {"serviceAccounts": [_account(rng)]}}


def _pod(rng: random.Random, home: str, name: str, number: int) -> dict[str, Any]:
    app: dict[str, Any] = {"name": "app", "ports": [{"name": "http", "containerPort": rng.choice((8080, 9990))}]}
    if rng.random() < 0.3:
        app["livenessProbe"] = {"httpGet": {"path": rng.choice(PATHS), "port": 8080}}
    containers = [app] if number == 3 else [app, {"name": "linkerd-proxy", "ports": []}]
    notes: dict[str, str] = {}
    for key, values, odds in (
        (DEFAULT, (*MODES, "none"), 0.3),
        ("config.linkerd.io/skip-inbound-ports", ("8080", "25,9000-9999"), 0.1),
        ("config.linkerd.io/opaque-ports", ("8080", "9990"), 0.1),
        ("config.linkerd.io/proxy-require-identity-inbound-ports", ("8080", "9990"), 0.2),
    ):
        if rng.random() < odds:
            notes[key] = rng.choice(values)
    if notes.get(DEFAULT) == "none":
        del notes[DEFAULT]
    address = "203.0.113.5" if number == 2 else f"10.0.0.{number + 1}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": home, "name": name, "labels": {"app": rng.choice(APPS)}, "annotations": notes},
        "spec": {"serviceAccountName": rng.choice(("a1", "a2")), "containers": containers, "nodeName": f"x{number}"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def _selector(rng: random.Random, key: str, values: tuple[str, ...]) -> dict[str, Any]:
    return {} if rng.random() < 0.4 else {"matchLabels": {key: rng.choice(values)}}


def _route(rng: random.Random, number: int) -> dict[str, Any]:
    matches = []
    for _ in range(rng.randint(0, 2)):
        match: dict[str, Any] = {}
        if rng.random() < 0.7:
            match["path"] = {"type": rng.choice(("Exact", "PathPrefix")), "value": rng.choice((*PATHS, "/a/"))}
        if rng.random() < 0.4:
            match["method"] = rng.choice(METHODS)
        matches.append(match)
    parent = {"group": G, "kind": "Server", "name": rng.choice(("s1", "s1", "s2"))}
    rules = [{"matches": matches}] if matches else [{}]
    version = rng.choice((f"{G}/v1beta3", f"{W}/v1"))
    return _object(rng, version, "HTTPRoute", f"r{number}", {"parentRefs": [parent], "rules": rules})


def _authorization(rng: random.Random, number: int) -> dict[str, Any]:
    home = rng.choice(("n0", "n0", "n1"))
    kind = rng.choice(("Server", "Server", "Namespace", "HTTPRoute", "HTTPRoute", "HTTPRoute"))
    target = {"group": G, "kind": kind, "name": rng.choice(NAMES)}
    if kind == "Namespace":
        target = {"kind": kind, "name": home}
    if kind == "HTTPRoute":
        target = {"group": rng.choice((G, W)), "kind": kind, "name": rng.choice(("r0", "r1", "r2"))}
    references: list[dict[str, Any]] = []
    place = {"namespace": rng.choice(("n0", "n1"))} if rng.random() < 0.3 else {}
    if rng.random() < 0.4:
        if rng.random() < 0.7:
            references.append({"group": G, "kind": "MeshTLSAuthentication", "name": rng.choice(("m0", "m1"))} | place)
        else:
            references.append({"kind": "ServiceAccount"} | _account(rng))
    if rng.random() < 0.3:
        references.append({"group": G, "kind": "NetworkAuthentication", "name": rng.choice(("w0", "w1"))} | place)
    spec = {"targetRef": target, "requiredAuthenticationRefs": references}
    return _object(rng, f"{G}/v1alpha1", "AuthorizationPolicy", f"p{number}", spec, home)


def world(rng: random.Random) -> Objects:
    """A small cluster full of odd policies."""
    objects: Objects = []
    for home in ("n0", "n1"):
        notes = {DEFAULT: rng.choice(MODES)} if rng.random() < 0.3 else {}
        meta = {"name": home, "labels": {}, "annotations": notes}
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    objects += [_pod(rng, home, f"p{n}", n) for n, home in enumerate(("n0", "n0", "n1", "n1"))]
    for name in NAMES[: rng.choice((0, 1, 1, 2, 3))]:
        spec: dict[str, Any] = {
            "podSelector": _selector(rng, "app", APPS),
            "port": rng.choice((8080, 8080, 9990, "http")),
        }
        if rng.random() < 0.4:
            spec["proxyProtocol"] = rng.choice(("HTTP/1", "HTTP/2", "opaque", "TLS", "unknown", "gRPC"))
        if rng.random() < 0.2:
            spec["accessPolicy"] = rng.choice(MODES)
        server = _object(rng, f"{G}/v1beta3", "Server", name, spec)
        server["metadata"]["labels"] = {"tier": rng.choice(("x", "y"))}
        objects.append(server)
    for number in range(rng.randint(0, 2)):
        by_label = {"selector": _selector(rng, "tier", ("x", "y"))}
        target: dict[str, Any] = {"name": rng.choice(NAMES)} if rng.random() < 0.6 else by_label
        spec = {"server": target, "client": _client(rng)}
        objects.append(_object(rng, f"{G}/v1beta1", "ServerAuthorization", f"a{number}", spec))
    for number in range(rng.randint(0, 2)):
        if rng.random() < 0.5:
            spec = {"identities": _names(rng)}
        elif rng.random() < 0.5:
            spec = {"identityRefs": [{"kind": "ServiceAccount"} | _account(rng)]}
        else:
            spec = {"identityRefs": [{"kind": "Namespace", "name": rng.choice(("n0", "n1"))}]}
        objects.append(_object(rng, f"{G}/v1alpha1", "MeshTLSAuthentication", f"m{number}", spec))
    for number in range(rng.randint(0, 2)):
        spec = {"networks": [_network(rng) for _ in range(rng.randint(1, 2))]}
        objects.append(_object(rng, f"{G}/v1alpha1", "NetworkAuthentication", f"w{number}", spec))
    objects += [_authorization(rng, number) for number in range(rng.randint(0, 4))]
    objects += [_route(rng, number) for number in range(rng.choice((0, 0, 1, 2, 3)))]
    for name in ("e0", "e1")[: rng.randint(0, 2)]:
        spec = {"trafficPolicy": rng.choice(("Allow", "Deny", "Deny"))}
        if rng.random() < 0.5:
            spec["networks"] = [
                {"cidr": rng.choice(("198.51.0.0/16", "198.51.100.0/24", "0.0.0.0/0", "2001:db8::/32"))}
            ]
        network = _object(rng, f"{G}/v1alpha1", "EgressNetwork", name, spec, rng.choice(("n0", "linkerd-egress")))
        network["metadata"].pop("creationTimestamp", None)
        objects.append(network)
        if rng.random() < 0.4:
            parent = {"group": G, "kind": "EgressNetwork", "name": name, "namespace": network["metadata"]["namespace"]}
            spec = {"parentRefs": [parent | {"port": rng.choice((8080, 9990))}], "rules": [{}]}
            objects.append(_object(rng, f"{W}/v1alpha2", "TCPRoute", f"t{name}", spec, "n0"))
    return objects
