"""An exam of the batch form over Istio and Linkerd: what is expected comes from the documents, not from the engine.

Sources: "authz" = istio/istio `pilot/pkg/security/authz`, istio.io/reference/config/security/authorization-policy;
"attach" = `pilot/pkg/model/policyattachment.go`; "authn" = `pilot/pkg/model/authentication.go`; "ambient" =
`pilot/pkg/serviceregistry/ambient/authorization.go`, ztunnel `src/rbac.rs`, istio.io/docs/ambient; "sidecar" =
istio.io/reference/config/networking/sidecar; "linkerd" = linkerd.io/2/reference/authorization-policy and linkerd2
`policy-controller/k8s/index/src/inbound`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from policy_build import namespace, network_policy, pod
from policy_exam_worlds import (
    a_side,
    admits,
    authz,
    b_side,
    config_map,
    entry,
    grants,
    istio_world,
    labelled,
    linkerd,
    linkerd_world,
    mesh,
    of,
    peer,
    request,
    route,
    server,
    sidecar,
    waypoint,
)

from mcdoctor.policy.batch import answers
from mcdoctor.policy.engine import load
from mcdoctor.policy.families import FAMILIES
from mcdoctor.policy.world import ClusterInput

WEB = {"principals": ["cluster.local/ns/shop/sa/web"]}
FROM_WEB = [{"from": [{"source": WEB}]}]
GETS = [{"to": [{"operation": {"methods": ["GET"]}}]}]
AP, PA, RA = "AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"
GET = {"method": "GET", "path": "/", "host": "api", "headers": {}}
API = {"app": "api"}
DEFAULT = "config.linkerd.io/default-inbound-policy"


def q(source: str = "shop/web", destination: str = "pod shop/api", port: int = 8080, **rest: Any) -> dict[str, Any]:
    kind, _, name = destination.partition(" ")
    source_kind, _, source_name = f"pod {source}".rpartition("pod ")[2].rpartition(" ")
    return {"source": {source_kind or "pod": source_name}, "destination": {kind: name}, "port": port} | rest


def get(path: str = "/", method: str = "GET", **headers: str) -> dict[str, Any]:
    return {**GET, "path": path, "method": method, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


def db(**rest: Any) -> dict[str, Any]:
    return q(destination="pod shop/db", port=5432, **rest)


def api(source: str = "shop/web", **rest: Any) -> dict[str, Any]:
    """The Service, through the waypoint."""
    return q(source, "service shop/api", 80, **rest)


def refuses(kind: str, name: str, pointer: str, home: str = "shop", direction: str = "ingress") -> tuple[str, ...]:
    return kind, home, name, pointer, direction, "deny"


def permits(kind: str, name: str, pointer: str, home: str = "shop", direction: str = "ingress") -> tuple[str, ...]:
    return kind, home, name, pointer, direction, "allow"


BARE = "other/bare"
OPA = mesh("extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: opa.x, port: 1}}]")
TO_SERVICE = {"targetRefs": [{"group": "", "kind": "Service", "name": "api"}]}
TO_GATEWAY = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}]}
EDGE = [
    pod("istio-system", "edge-1", {"gateway.networking.k8s.io/gateway-name": "edge", "app": "edge"}, ip="10.0.0.20", containers=("istio-proxy",)),
]  # fmt: skip
ONLY = mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}")
STRICT, PERMISSIVE = {"mtls": {"mode": "STRICT"}}, {"mtls": {"mode": "PERMISSIVE"}}
OF_API = {"selector": {"matchLabels": API}}
OF_GW = {"selector": {"matchLabels": {"app": "edge"}}}

# (name, objects, question, "verdict egress ingress", what decides; None = not looked at)
ISTIO: list[tuple[str, list[Any], dict[str, Any], str, Any]] = [
    # root namespace (attach: root = whole mesh, else the own namespace)
    ("root-allow-nothing", istio_world(authz("deny-all", {}, "istio-system")), q(), "denied allowed denied", [refuses(AP, "deny-all", "/spec", "istio-system")]),
    ("root-deny-selects-in-every-namespace", istio_world(authz("p", {"action": "DENY", "rules": [{"from": [{"source": {"notNamespaces": ["shop"]}}]}], **OF_API}, "istio-system")), q(BARE), "denied allowed denied", [refuses(AP, "p", "/spec/rules/0", "istio-system")]),
    ("root-deny-leaves-others-alone", istio_world(authz("p", {"action": "DENY", "rules": [{}], **OF_API}, "istio-system")), db(), "allowed allowed allowed", []),
    ("root-namespace-is-configured", istio_world(mesh("rootNamespace: mesh-root"), authz("deny-all", {}, "istio-system")), q(), "allowed allowed allowed", []),
    ("root-namespace-as-configured", istio_world(mesh("rootNamespace: mesh-root"), authz("deny-all", {}, "mesh-root")), q(), "denied allowed denied", [refuses(AP, "deny-all", "/spec", "mesh-root")]),
    ("root-allow-and-own-allow-are-one-list", istio_world(authz("r", {"rules": FROM_WEB}, "istio-system"), authz("own", {"rules": [{"from": [{"source": {"namespaces": ["other"]}}]}]})), q(), "allowed allowed allowed", [permits(AP, "r", "/spec/rules/0", "istio-system")]),
    ("configmap-of-somebody-else-called-istio", istio_world(config_map("shop", "istio", other="x"), mesh("trustDomain: td"), authz("p", {"rules": [{"from": [{"source": {"principals": ["td/ns/shop/sa/web"]}}]}]})), q(), "allowed allowed allowed", None),
    # targetRefs (attach: a workload that is no gateway ignores a policy that has them)
    ("target-gateway-is-not-for-workloads", istio_world(authz("p", {"action": "DENY", "rules": [{}], **TO_GATEWAY})), q(), "allowed allowed allowed", []),
    ("target-service-without-waypoint", istio_world(authz("p", {"action": "DENY", "rules": [{}], **TO_SERVICE})), q(), "allowed allowed allowed", []),
    ("target-gateway-at-the-gateway", istio_world(*EDGE, authz("p", {"action": "DENY", "rules": [{}], **TO_GATEWAY}, "istio-system")), q(BARE, "pod istio-system/edge-1", 80), "denied allowed denied", [refuses(AP, "p", "/spec/rules/0", "istio-system")]),
    ("target-gateway-of-another-namespace", istio_world(*EDGE, authz("p", {"action": "DENY", "rules": [{}], **TO_GATEWAY})), q(BARE, "pod istio-system/edge-1", 80), "allowed allowed allowed", []),
    ("selector-at-a-gateway", istio_world(*EDGE, authz("p", {"action": "DENY", "rules": [{}], **OF_GW}, "istio-system")), q(BARE, "pod istio-system/edge-1", 80), "denied allowed denied", None),
    # CUSTOM, AUDIT, dry run
    ("custom-asks-the-provider", istio_world(OPA, authz("ext", {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]})), q(http=GET), "unknown allowed unknown", None),
    ("custom-that-does-not-match", istio_world(OPA, authz("ext", {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{"to": [{"operation": {"paths": ["/admin*"]}}]}]})), q(http=get("/shop")), "allowed allowed allowed", []),
    ("custom-unknown-provider", istio_world(OPA, authz("ext", {"action": "CUSTOM", "provider": {"name": "opaa"}, "rules": [{}]})), q(http=GET), "denied allowed denied", [refuses(AP, "ext", "/spec/rules/0")]),
    ("deny-beside-custom", istio_world(OPA, authz("ext", {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]}), authz("no", {"action": "DENY", "rules": [{}]})), q(http=GET), "denied allowed denied", None),
    ("audit-does-nothing", istio_world(authz("log", {"action": "AUDIT", "rules": [{}]})), q(), "allowed allowed allowed", []),
    ("audit-is-no-allow", istio_world(authz("log", {"action": "AUDIT", "rules": [{}]}), authz("p", {})), q(), "denied allowed denied", [refuses(AP, "p", "/spec")]),
    ("dry-run-of-a-deny", istio_world(authz("p", {"action": "DENY", "rules": [{}]}, annotations={"istio.io/dry-run": "true"})), q(), "allowed allowed allowed", []),
    ("dry-run-of-an-allow", istio_world(authz("p", {"rules": []}, annotations={"istio.io/dry-run": "true"})), q(), "allowed allowed allowed", []),
    # principals
    ("principal-with-scheme-in-an-allow", istio_world(authz("p", {"rules": [{"from": [{"source": {"principals": ["spiffe://cluster.local/ns/shop/sa/web"]}}]}]})), q(), "denied allowed denied", [refuses(AP, "p", "/spec/rules")]),
    ("principal-with-scheme-in-a-deny", istio_world(authz("p", {"action": "DENY", "rules": [{"from": [{"source": {"principals": ["spiffe://cluster.local/ns/shop/sa/web"]}}]}]})), q(), "allowed allowed allowed", []),
    ("scheme-in-the-question", istio_world(authz("p", {"rules": FROM_WEB})), q(BARE, principal="spiffe://cluster.local/ns/shop/sa/web"), "allowed allowed allowed", [permits(AP, "p", "/spec/rules/0")]),
    ("principal-of-plaintext", istio_world(authz("p", {"rules": FROM_WEB})), q(mtls=False), "denied allowed denied", None),
    ("principal-suffix", istio_world(authz("p", {"rules": [{"from": [{"source": {"principals": ["*/sa/web"]}}]}]})), q(), "allowed allowed allowed", None),
    ("principal-prefix-is-no-infix", istio_world(authz("p", {"rules": [{"from": [{"source": {"principals": ["cluster.local/*/web"]}}]}]})), q(), "denied allowed denied", None),
    ("not-principals-of-plaintext", istio_world(authz("p", {"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": ["*"]}}]}]})), q(BARE), "denied allowed denied", None),
    ("not-principals-with-identity", istio_world(authz("p", {"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": ["*"]}}]}]})), q(), "allowed allowed allowed", []),
    # trust domains
    ("alias-in-the-question", istio_world(mesh("trustDomain: td-b\ntrustDomainAliases: [td-a]"), authz("p", {"rules": [{"from": [{"source": {"principals": ["td-b/ns/shop/sa/web"]}}]}]})), q(principal="td-a/ns/shop/sa/web"), "allowed allowed allowed", None),
    ("no-alias", istio_world(mesh("trustDomain: td-b"), authz("p", {"rules": [{"from": [{"source": {"principals": ["td-b/ns/shop/sa/web"]}}]}]})), q(principal="td-a/ns/shop/sa/web"), "denied allowed denied", None),
    ("cluster-local-stands-for-the-local-one", istio_world(mesh("trustDomain: td-b"), authz("p", {"rules": FROM_WEB})), q(), "allowed allowed allowed", None),
    ("trust-domains-in-a-sidecar", istio_world(authz("p", {"rules": [{"from": [{"source": {"namespaces": ["shop"], "trustDomains": ["nope"]}}]}]})), q(), "denied allowed denied", None),
    # HTTP fields on a TCP port of a sidecar
    ("allow-of-http-on-tcp", istio_world(authz("p", {"rules": GETS})), db(), "denied allowed denied", [refuses(AP, "p", "/spec/rules")]),
    ("deny-of-http-on-tcp-refuses-all", istio_world(authz("p", {"action": "DENY", "rules": GETS})), db(), "denied allowed denied", [refuses(AP, "p", "/spec/rules/0")]),
    ("deny-of-not-paths-on-tcp-refuses-all", istio_world(authz("p", {"action": "DENY", "rules": [{"to": [{"operation": {"notPaths": ["/ok"]}}]}]})), db(), "denied allowed denied", None),
    ("deny-on-tcp-keeps-its-other-conditions", istio_world(authz("p", {"action": "DENY", "rules": [{**GETS[0], "from": [{"source": {"namespaces": ["other"]}}]}]})), db(), "allowed allowed allowed", []),
    ("remote-ip-blocks-on-tcp", istio_world(authz("p", {"rules": [{"from": [{"source": {"remoteIpBlocks": ["10.0.0.0/24"]}}]}]})), db(), "allowed allowed allowed", None),
    ("well-known-port-without-protocol", istio_world(authz("p", {"action": "DENY", "rules": GETS, "selector": {"matchLabels": {"app": "db"}}}), {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "db"}, "spec": {"selector": {"app": "db"}, "ports": [{"port": 3306}]}}), q(destination="pod shop/db", port=3306), "denied allowed denied", None),
    ("undeclared-port-without-a-request", istio_world(authz("p", {"rules": GETS})), q(port=9999), "conditional allowed conditional", None),
    # paths are compared as the proxy normalises them (BASE by default)
    ("deny-behind-dot-segments", istio_world(authz("p", {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin*"]}}]}]})), q(http=get("/shop/../admin/x")), "denied allowed denied", None),
    ("two-slashes-are-kept-by-base", istio_world(authz("p", {"rules": [{"to": [{"operation": {"paths": ["/a/b"]}}]}]})), q(http=get("/a//b")), "denied allowed denied", None),
    ("two-slashes-merged", istio_world(mesh("pathNormalization: {normalization: MERGE_SLASHES}"), authz("p", {"rules": [{"to": [{"operation": {"paths": ["/a/b"]}}]}]})), q(http=get("/a//b")), "allowed allowed allowed", None),
    ("decoded-slash", istio_world(mesh("pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}"), authz("p", {"rules": [{"to": [{"operation": {"paths": ["/a/b"]}}]}]})), q(http=get("/a%2Fb")), "allowed allowed allowed", None),
    ("no-normalization", istio_world(mesh("pathNormalization: {normalization: NONE}"), authz("p", {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin*"]}}]}]})), q(http=get("/shop/../admin/x")), "allowed allowed allowed", []),
    ("slash-api-star-is-not-slash-api", istio_world(authz("p", {"rules": [{"to": [{"operation": {"paths": ["/api/*"]}}]}]})), q(http=get("/api")), "denied allowed denied", None),
    # PeerAuthentication
    ("port-level-permissive-under-strict", istio_world(peer("p", {**STRICT, **OF_API, "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}})), q(BARE), "allowed allowed allowed", []),
    ("port-level-is-the-container-port", istio_world(peer("p", {**STRICT, **OF_API, "portLevelMtls": {"80": {"mode": "PERMISSIVE"}}})), q(BARE, "service shop/api", 80), "denied allowed denied", [refuses(PA, "p", "/spec/mtls/mode")]),
    ("port-level-strict-under-permissive", istio_world(peer("p", {**PERMISSIVE, **OF_API, "portLevelMtls": {"8080": {"mode": "STRICT"}}})), q(BARE), "denied allowed denied", [refuses(PA, "p", "/spec/portLevelMtls/8080/mode")]),
    ("port-level-without-selector-does-not-count", istio_world(peer("p", {**PERMISSIVE, "portLevelMtls": {"8080": {"mode": "STRICT"}}})), q(BARE), "allowed allowed allowed", []),
    ("plaintext-said-under-strict", istio_world(peer("p", STRICT)), q(mtls=False), "denied allowed denied", [refuses(PA, "p", "/spec/mtls/mode")]),
    ("mtls-said-from-outside-the-mesh", istio_world(peer("p", STRICT)), q(BARE, mtls=True), "allowed allowed allowed", []),
    ("unset-inherits-from-the-mesh", istio_world(peer("m", STRICT, "istio-system"), peer("p", {"mtls": {"mode": "UNSET"}})), q(BARE), "denied allowed denied", [refuses(PA, "m", "/spec/mtls/mode", "istio-system")]),
    ("the-oldest-of-two", istio_world(peer("z", PERMISSIVE, creationTimestamp="2024-01-01T00:00:00Z"), peer("a", STRICT, creationTimestamp="2025-01-01T00:00:00Z")), q(BARE), "allowed allowed allowed", []),
    ("strict-and-kubelet-at-a-sidecar", istio_world(peer("p", STRICT)), q("node n1", port=15020), "allowed allowed allowed", []),
    ("disable-has-no-identity", istio_world(peer("p", {"mtls": {"mode": "DISABLE"}}), authz("a", {"rules": FROM_WEB})), q(), "denied allowed denied", None),
    ("excluded-inbound-port", [labelled(o, {}) if o["metadata"]["name"] != "api" or o["kind"] != "Pod" else {**o, "metadata": {**o["metadata"], "annotations": {"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}}} for o in istio_world(authz("p", {}), peer("s", STRICT))], q(BARE), "allowed allowed allowed", []),
    ("excluded-outbound-port-is-plaintext", [o if o["metadata"]["name"] != "web" else {**o, "metadata": {**o["metadata"], "annotations": {"traffic.sidecar.istio.io/excludeOutboundPorts": "80"}}} for o in istio_world(peer("s", STRICT))], q(destination="service shop/api", port=80), "denied allowed denied", [refuses(PA, "s", "/spec/mtls/mode")]),
    ("client-told-not-to-use-tls", istio_world(peer("s", STRICT), {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"namespace": "shop", "name": "d"}, "spec": {"host": "api", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}}), api(), "denied allowed denied", None),
    ("client-told-so-for-another-port", istio_world(peer("s", STRICT), {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"namespace": "shop", "name": "d"}, "spec": {"host": "api", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 81}, "tls": {"mode": "DISABLE"}}]}}}), api(), "allowed allowed allowed", []),
    ("client-told-so-for-this-port", istio_world(peer("s", STRICT), {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"namespace": "shop", "name": "d"}, "spec": {"host": "api", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}, "tls": {"mode": "DISABLE"}}]}}}), api(), "denied allowed denied", None),
    # RequestAuthentication: a bad token is refused, a missing one is not
    ("no-token", istio_world(request("j", {"jwtRules": [{"issuer": "x"}]})), q(http=GET), "allowed allowed allowed", []),
    ("some-token", istio_world(request("j", {"jwtRules": [{"issuer": "x"}]})), q(http=get(authorization="Bearer t")), "conditional allowed conditional", None),
    ("token-in-a-header-of-its-own", istio_world(request("j", {"jwtRules": [{"issuer": "x", "fromHeaders": [{"name": "X-Jwt"}]}]}), authz("p", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]})), q(http=get(x_jwt="t")), "conditional allowed conditional", None),
    ("token-in-the-query", istio_world(request("j", {"jwtRules": [{"issuer": "x"}]}), authz("p", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]})), q(http=get("/?access_token=t")), "conditional allowed conditional", None),
    ("request-principals-without-request-authentication", istio_world(authz("p", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]})), q(http=get(authorization="Bearer t")), "denied allowed denied", None),
    ("deny-without-a-token", istio_world(request("j", {"jwtRules": [{"issuer": "x"}]}), authz("p", {"action": "DENY", "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]})), q(http=GET), "denied allowed denied", [refuses(AP, "p", "/spec/rules/0")]),
    ("request-authentication-of-other-workloads", istio_world(request("j", {"jwtRules": [{"issuer": "x"}], "selector": {"matchLabels": {"app": "db"}}})), q(http=get(authorization="Bearer t")), "allowed allowed allowed", []),
    # sending
    ("registry-only-of-a-sidecar", istio_world(sidecar({"egress": [{"hosts": ["./*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})), q(destination="fqdn x.example", port=443), "denied denied allowed", [refuses("Sidecar", "default", "/spec/outboundTrafficPolicy/mode", direction="egress")]),
    ("registry-only-of-the-mesh", istio_world(ONLY), q(destination="fqdn x.example", port=443), "denied denied allowed", [refuses("ConfigMap", "istio", "/data/mesh", "istio-system", "egress")]),
    ("registry-has-it", istio_world(ONLY, entry("x.example")), q(destination="fqdn x.example", port=443), "allowed allowed allowed", None),
    ("registry-has-it-on-another-port", istio_world(ONLY, entry("x.example")), q(destination="fqdn x.example", port=8443), "denied denied allowed", None),
    ("a-sidecar-allows-any", istio_world(ONLY, sidecar({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}})), q(destination="fqdn x.example", port=443), "allowed allowed allowed", None),
    ("a-sidecar-without-the-namespace", istio_world(ONLY, sidecar({"egress": [{"hosts": ["istio-system/*"]}]})), api(), "denied denied allowed", None),
    ("a-sidecar-that-names-it-for-another-port", istio_world(ONLY, sidecar({"egress": [{"port": {"number": 8443}, "hosts": ["./*"]}]})), api(), "denied denied allowed", None),
    ("registry-only-is-not-for-pods-outside", istio_world(ONLY), q(BARE, "fqdn x.example", 443), "allowed allowed allowed", []),
    ("excluded-from-capture", [o if o["metadata"]["name"] != "web" else {**o, "metadata": {**o["metadata"], "annotations": {"traffic.sidecar.istio.io/excludeOutboundIPRanges": "198.51.100.0/24"}}} for o in istio_world(ONLY)], {"source": {"pod": "shop/web"}, "destination": {"ip": "198.51.100.7"}, "port": 443}, "allowed allowed allowed", []),
]  # fmt: skip

AMBIENT: list[tuple[str, list[Any], dict[str, Any], str, Any]] = [
    ("allow-of-http-is-left-out", istio_world(authz("p", {"rules": GETS}), ambient=True), q(http=GET), "denied allowed denied", [refuses(AP, "p", "/spec/rules")]),
    ("deny-of-http-does-nothing", istio_world(authz("p", {"action": "DENY", "rules": GETS}), ambient=True), q(http=GET), "allowed allowed allowed", []),
    ("mixed-clause-keeps-its-connection-part", istio_world(authz("p", {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/x"], "ports": ["8080"]}}]}]}), ambient=True), q(http=GET), "denied allowed denied", [refuses(AP, "p", "/spec/rules/0")]),
    ("trust-domains-are-not-carried-over", istio_world(authz("p", {"rules": [{"from": [{"source": {"namespaces": ["shop"], "trustDomains": ["nope"]}}]}]}), ambient=True), q(), "allowed allowed allowed", None),
    ("sni-leaves-an-allow-out", istio_world(authz("p", {"rules": [{"when": [{"key": "connection.sni", "values": ["x"]}]}]}), ambient=True), q(), "denied allowed denied", None),
    ("custom-is-not-supported", istio_world(OPA, authz("p", {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]}), ambient=True), q(), "allowed allowed allowed", []),
    ("audit-is-not-supported", istio_world(authz("p", {"action": "AUDIT", "rules": [{}]}), ambient=True), q(), "allowed allowed allowed", []),
    ("strict-is-a-deny-of-no-principal", istio_world(peer("p", STRICT), ambient=True), q(BARE), "denied allowed denied", [refuses(PA, "p", "/spec/mtls/mode")]),
    ("strict-and-kubelet", istio_world(peer("p", STRICT), authz("a", {"rules": FROM_WEB}), ambient=True), q("node n1"), "allowed allowed allowed", []),
    ("strict-and-another-node", istio_world(peer("p", STRICT), ambient=True), q("node n2"), "denied allowed denied", None),
    ("root-peer-authentication-with-selector", istio_world(peer("p", {**STRICT, **OF_API}, "istio-system"), ambient=True), q(BARE), "allowed allowed allowed", []),
    ("request-authentication-is-no-matter-of-ztunnel", istio_world(request("j", {"jwtRules": [{"issuer": "x"}]}), ambient=True), q(http=get(authorization="Bearer t")), "allowed allowed allowed", []),
    ("network-policy-sees-hbone", istio_world(admits(of("shop")), ambient=True), q(), "denied allowed denied", [refuses("NetworkPolicy", "in", "/spec/ingress")]),
    ("network-policy-admits-hbone", istio_world(admits(of("shop"), port=15008), ambient=True), q(), "allowed allowed allowed", None),
    ("plaintext-is-not-encapsulated", istio_world(admits(of("other"), port=8080), ambient=True), q(BARE), "allowed allowed allowed", None),
    # a waypoint
    ("waypoint-enforces-what-targets-the-service", waypoint(authz("p", {"rules": GETS, **TO_SERVICE})), api(http=get(method="PUT")), "denied allowed denied", [refuses(AP, "p", "/spec/rules")]),
    ("waypoint-knows-the-client", waypoint(authz("p", {"rules": FROM_WEB, **TO_SERVICE})), api(http=GET), "allowed allowed allowed", None),
    ("waypoint-sees-the-clients-address", waypoint(authz("p", {"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.1"]}}]}], **TO_SERVICE})), api(http=GET), "allowed allowed allowed", None),
    ("ztunnel-sees-the-waypoint", waypoint(authz("p", {"rules": FROM_WEB, **OF_API})), api(http=GET), "denied allowed denied", None),
    ("ztunnel-admits-the-waypoint", waypoint(authz("p", {"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/wp"]}}]}], **OF_API})), api(http=GET), "allowed allowed allowed", None),
    ("past-the-waypoint-by-the-pods-address", waypoint(authz("p", {"action": "DENY", "rules": [{}], **TO_SERVICE})), q(), "allowed allowed allowed", []),
    ("plaintext-passes-the-waypoint-by", waypoint(authz("p", {"action": "DENY", "rules": [{}], **TO_SERVICE})), api(BARE), "allowed allowed allowed", []),
    ("network-policy-sees-the-waypoint", waypoint(admits(of("shop", app="web"), port=15008)), api(http=GET), "denied allowed denied", [refuses("NetworkPolicy", "in", "/spec/ingress")]),
    ("network-policy-admits-the-waypoint", waypoint(admits({"podSelector": {}}, port=15008)), api(http=GET), "allowed allowed allowed", None),
    ("token-at-the-waypoint", waypoint(request("j", {"jwtRules": [{"issuer": "x"}], **TO_SERVICE}), authz("p", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}], **TO_SERVICE})), api(http=get(authorization="Bearer t")), "conditional allowed conditional", None),
    ("no-token-at-the-waypoint", waypoint(request("j", {"jwtRules": [{"issuer": "x"}], **TO_SERVICE}), authz("p", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}], **TO_SERVICE})), api(http=GET), "denied allowed denied", None),
]  # fmt: skip

KNOWN = linkerd("MeshTLSAuthentication", "known", {"identities": ["web-sa.shop.serviceaccount.identity.linkerd.cluster.local"]})  # fmt: skip
SUFFIX = linkerd("MeshTLSAuthentication", "known", {"identities": ["*.shop.serviceaccount.identity.linkerd.cluster.local"]})  # fmt: skip
NEAR = linkerd("NetworkAuthentication", "near", {"networks": [{"cidr": "10.0.0.0/24", "except": ["10.0.0.1/32"]}]})
BY_TLS, BY_NET = ("MeshTLSAuthentication", "known"), ("NetworkAuthentication", "near")
NOTED = "/metadata/annotations/config.linkerd.io~1default-inbound-policy"
JOB = "old/job"

LINKERD: list[tuple[str, list[Any], dict[str, Any], str, Any]] = [
    ("default-of-the-namespace", linkerd_world(home={DEFAULT: "deny"}), q(), "denied allowed denied", [("Namespace", "", "shop", NOTED, "ingress", "deny")]),
    ("default-of-the-pod-before-it", linkerd_world(home={DEFAULT: "deny"}, own={DEFAULT: "all-authenticated"}), q(), "allowed allowed allowed", []),
    ("default-refuses-plaintext", linkerd_world(own={DEFAULT: "all-authenticated"}), q(JOB), "denied allowed denied", [("Pod", "shop", "api", NOTED, "ingress", "deny")]),
    ("default-of-the-cluster", linkerd_world(config_map("linkerd", "linkerd-config", values="proxy: {defaultInboundPolicy: cluster-authenticated}")), q(JOB), "denied allowed denied", None),
    ("default-audit", linkerd_world(home={DEFAULT: "audit"}), q(JOB), "allowed allowed allowed", []),
    ("default-is-not-for-ports-with-a-server", linkerd_world(server(), home={DEFAULT: "all-unauthenticated"}), q(), "denied allowed denied", [refuses("Server", "api", "/spec")]),
    ("access-policy", linkerd_world(server(accessPolicy="all-unauthenticated"), home={DEFAULT: "deny"}), q(JOB), "allowed allowed allowed", [permits("Server", "api", "/spec/accessPolicy")]),
    ("a-namespace-grant-needs-a-server", linkerd_world(grants("Namespace", "shop"), home={DEFAULT: "deny"}), q(), "denied allowed denied", None),
    ("a-namespace-grant-for-its-servers", linkerd_world(server(), grants("Namespace", "shop", BY_TLS), KNOWN), q(), "allowed allowed allowed", [permits(AP, "for-shop", "/spec/requiredAuthenticationRefs")]),
    ("both-references-must-hold", linkerd_world(server(), grants("Server", "api", BY_TLS, BY_NET), KNOWN, NEAR), q(), "denied allowed denied", None),
    ("a-missing-reference", linkerd_world(server(), grants("Server", "api", BY_TLS)), q(), "denied allowed denied", [refuses("Server", "api", "/spec")]),
    ("no-references", linkerd_world(server(), grants("Server", "api")), q(JOB), "allowed allowed allowed", None),
    ("identity-suffix", linkerd_world(server(), grants("Server", "api", BY_TLS), SUFFIX), q(), "allowed allowed allowed", None),
    ("identity-of-plaintext", linkerd_world(server(), grants("Server", "api", BY_TLS), SUFFIX), q(mtls=False), "denied allowed denied", None),
    ("unmatched-route-is-404", linkerd_world(server(), grants("Server", "api"), route("r", "/orders")), q(http=get("/users")), "denied allowed denied", [refuses("HTTPRoute", "r", "/spec/rules")]),
    ("matched-route", linkerd_world(server(), grants("HTTPRoute", "r"), route("r", "/orders")), q(http=get("/orders/7")), "allowed allowed allowed", [permits(AP, "for-r", "/spec/requiredAuthenticationRefs")]),
    ("grant-of-another-route", linkerd_world(server(), grants("HTTPRoute", "s"), route("r", "/orders"), route("s", "/users")), q(http=get("/orders/7")), "denied allowed denied", None),
    ("skipped-port", linkerd_world(server(), own={"config.linkerd.io/skip-inbound-ports": "8080"}), q(JOB), "allowed allowed allowed", []),
    ("opaque-port-loses-its-routes", linkerd_world(server(), grants("Server", "api"), route("r", "/orders"), own={"config.linkerd.io/opaque-ports": "8080"}), q(), "allowed allowed allowed", None),
    ("identity-is-required-on-the-port", linkerd_world(own={"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"}), q(JOB), "denied allowed denied", None),
    ("no-policy-of-the-client-side", linkerd_world(server()), q("shop/api", "pod old/job", 8080), "allowed allowed allowed", []),
    ("udp-is-not-captured", linkerd_world(server()), q(protocol="UDP"), "allowed allowed allowed", []),
]  # fmt: skip

ALL = [("istio", *case) for case in ISTIO] + [("ambient", *case) for case in AMBIENT] + [("linkerd", *case) for case in LINKERD]  # fmt: skip


@pytest.mark.parametrize(
    ("objects", "question", "expected", "by"), [case[2:] for case in ALL], ids=[f"{case[0]}-{case[1]}" for case in ALL]
)
def test_one_cluster(objects: list[Any], question: dict[str, Any], expected: str, by: Any) -> None:
    [line] = answers(load([ClusterInput("a", objects)]), [json.dumps({"id": 1, **question})])
    answer = json.loads(line)
    assert f"{answer['verdict']} {answer['egress']} {answer['ingress']}" == expected, answer["reason"]
    if by is not None:
        fields = ("kind", "namespace", "name", "pointer", "direction", "effect")
        assert [tuple(d[f] for f in fields) for d in answer["deciding"]] == by, answer["reason"]
    if expected.startswith("denied"):
        assert answer["deciding"], answer["reason"]


def test_the_identity_of_the_client_comes_with_its_own_trust_domain() -> None:
    """policy.md 4.2: principals need the remote trust domain or an alias on the receiving side."""
    proxy = {"containers": ("app", "istio-proxy")}
    near = a_side(namespace("istio-system"), mesh("trustDomain: td-a"), **proxy)

    def asked(principal: str, config: str) -> str:
        policy = authz("p", {"rules": [{"from": [{"source": {"principals": [principal]}}]}]})
        far = b_side(namespace("istio-system"), mesh(config), policy, **proxy)
        engine = load([ClusterInput("a", near, "source"), ClusterInput("b", far, "destination")])
        source, target = {"pod": "shop/web", "cluster": "a"}, {"pod": "shop/api", "cluster": "b"}
        question = {"source": source, "destination": target, "port": 8080, "via": "flat", "http": GET}
        return str(json.loads(next(iter(answers(engine, [json.dumps(question)]))))["ingress"])

    assert asked("td-a/ns/shop/sa/web", "trustDomain: td-b") == "allowed"
    assert asked("td-b/ns/shop/sa/web", "trustDomain: td-b") == "denied"
    assert asked("cluster.local/ns/shop/sa/web", "trustDomain: td-b") == "denied"
    assert asked("td-b/ns/shop/sa/web", "trustDomain: td-b\ntrustDomainAliases: [td-a]") == "allowed"


@pytest.mark.parametrize(
    ("serves", "destination", "expected"),
    [
        (None, "service", "denied"),  # services where the label is missing
        ("service", "service", "denied"),
        ("all", "service", "denied"),
        ("workload", "service", "allowed"),
        ("none", "service", "allowed"),
        (None, "pod", "allowed"),
        ("workload", "pod", "denied"),
        ("all", "pod", "denied"),
    ],
)
def test_what_a_waypoint_is_for(serves: str | None, destination: str, expected: str) -> None:
    """istio.io/docs/ambient/usage/waypoint: istio.io/waypoint-for is service, workload, all or none."""
    own = {"istio.io/waypoint-for": serves} if serves else {}
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"namespace": "shop", "name": "wp", "labels": own}}  # fmt: skip
    closed = authz("p", {"action": "DENY", "rules": [{}], "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "wp"}]})  # fmt: skip
    objects = [labelled(o, {"istio.io/use-waypoint": "wp"}) if o["metadata"]["name"] == "shop" else o for o in waypoint(gateway, closed)]  # fmt: skip
    question = api() if destination == "service" else q()
    [line] = answers(load([ClusterInput("a", objects)]), [json.dumps(question)])
    assert json.loads(line)["verdict"] == expected, line


def test_a_waypoint_stands_in_the_path_of_packets_without_the_meshs_own_policies() -> None:
    """Network families alone, as a diagnosis asks them: the waypoint is still what arrives."""
    network = tuple(family for family in FAMILIES if family.name not in ("istio", "linkerd"))
    front = {"matchExpressions": [{"key": "gateway.networking.k8s.io/gateway-name", "operator": "Exists"}]}
    for allowed, expected in (({"matchLabels": {"app": "web"}}, "denied"), (front, "allowed")):
        rule = {"from": [{"podSelector": allowed}], "ports": [{"port": 15008}]}
        policy = network_policy("shop", "in", {"podSelector": {"matchLabels": API}, "ingress": [rule]})
        [line] = answers(load([ClusterInput("a", waypoint(policy))], network), [json.dumps(api())])
        assert json.loads(line)["ingress"] == expected, line
