"""An exam of the batch over bundles of files: questions and answers written from the documents before asking.

Sources: kubernetes.io "Network Policies" and `networking/v1/types.go`; docs.cilium.io security/policy and
network/clustermesh/policy; network-policy-api `apis/v1alpha1`, `apis/v1alpha2`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mcdoctor.cli.policy import app

Raw = dict[str, Any]
Row = tuple[Raw, Any, Raw, str, list[str]]


def exam(folder: Path, clusters: dict[str, str], lines: list[str]) -> list[Raw]:
    """The answers of `policy check --queries - --bundle FOLDER -o jsonl`; `clusters`: name -> YAML, the first is the
    source's.
    """
    roles = dict(zip(clusters, ("source", "destination"), strict=False))
    listed = "".join(f"- {{name: {name}, context: {name}, role: {roles[name]}}}\n" for name in clusters)
    folder.mkdir()
    (folder / "bundle.yaml").write_text(f"apiVersion: mcdoctor.dev/v1\nkind: Bundle\nclusters:\n{listed}")
    for name, text in clusters.items():
        (folder / "clusters" / name / "objects").mkdir(parents=True)
        (folder / "clusters" / name / "objects" / "all.yaml").write_text(text)
    arguments = ["check", "--queries", "-", "--bundle", str(folder), "-o", "jsonl"]
    result = CliRunner().invoke(app, arguments, input="\n".join(lines) + "\n")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def marks(folder: Path, clusters: dict[str, str], rows: list[Row]) -> None:
    """Every row's verdict, egress, ingress and what decides, compared at once so that all misses are seen."""
    lines = [
        json.dumps({"id": n, "source": source, "destination": destination} | ({"port": port} if port else {}) | more)
        for n, (source, (destination, port), more, _, _) in enumerate(rows)
    ]
    answers = exam(folder, clusters, lines)
    assert [a["id"] for a in answers] == list(range(len(rows)))
    missed = []
    for line, answer, row in zip(lines, answers, rows, strict=True):
        found = f"{answer['verdict']} {answer['egress']} {answer['ingress']}"
        by = [f"{d['kind']} {d['namespace']}/{d['name']} {d['pointer']} {d['direction']} {d['effect']}" for d in answer["deciding"]]  # fmt: skip
        if (found, by) != (row[3], row[4]):
            missed.append((line, "expected", row[3:], "found", found, by, answer["reason"]))
    assert not missed, "\n".join(map(str, missed))


def pod(name: str, cluster: str = "") -> Raw:
    return {"pod": name} | ({"cluster": cluster} if cluster else {})


def ip(address: str) -> Raw:
    return {"ip": address}


def manifest_pod(name: str, labels: str, address: str, node: str, ports: str = "", spec: str = "") -> str:
    """A Pod in YAML: `name` is ns/name, `ports` the list's inside."""
    namespace, _, short = name.partition("/")
    listed = ", ".join(f'{{ip: "{each}"}}' for each in address.split(","))
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: {short}, labels: {{{labels}}}}}
spec: {{nodeName: {node}, {spec} containers: [{{name: app, image: x, ports: [{ports}]}}]}}
status: {{phase: Running, podIP: "{address.split(",", maxsplit=1)[0]}", podIPs: [{listed}]}}
"""


NODES = """---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 172.16.0.1}, {type: Hostname, address: n1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 172.16.0.2}, {type: Hostname, address: n2}]}
"""
NAMESPACES = """---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: data, labels: {team: b}}
"""
DB_PORTS = (
    "{name: sql, containerPort: 5432}, {name: gossip, containerPort: 7000, protocol: UDP}, "
    "{name: diameter, containerPort: 3868, protocol: SCTP}, {name: metrics, containerPort: 9102}"
)
PODS = (
    manifest_pod("shop/web", "app: web", "10.0.0.1", "n2")
    + manifest_pod("shop/batch", "app: batch, tier: back", "10.0.0.3", "n2")
    + manifest_pod("data/db", "app: db", "10.0.0.2", "n1", DB_PORTS)
    + manifest_pod("data/cache", "app: cache", "10.0.0.4", "n2", "{name: redis, containerPort: 6379}")
    + manifest_pod("shop/agent", "app: web", "172.16.0.2", "n2", spec="hostNetwork: true,")
    + manifest_pod("data/mon", "app: mon", "172.16.0.1", "n1", spec="hostNetwork: true,")
)

# --- NetworkPolicy, the plugin not known ------------------------------------------------------------------------------

PLAIN = (
    NAMESPACES
    + NODES
    + PODS
    + manifest_pod("ghost/job", "app: job", "10.0.0.5", "n2")  # no Namespace object
    + """---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: db}
spec: {selector: {app: db}, clusterIP: 10.96.0.9, ports: [{name: sql, port: 80, targetPort: sql}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: head}
spec: {selector: {app: db}, clusterIP: None, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: none}
spec: {selector: {app: nobody}, clusterIP: 10.96.0.10, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: ext}
spec: {type: ExternalName, externalName: api.example.com}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: data, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}]
    ports: [{port: sql}]
  - from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}]
    ports: [{port: 5000, endPort: 6000}]
  - from: [{podSelector: {matchLabels: {app: cache}}}]
    ports: [{port: 3868, protocol: SCTP}]
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ghost}}}]
    ports: [{port: gossip, protocol: UDP}]
  - from: [{namespaceSelector: {matchLabels: {team: c}}}]
    ports: [{port: 9999}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: out}
spec:
  podSelector: {matchLabels: {app: batch}}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}]
    ports: [{port: sql}]
  - to: [{ipBlock: {cidr: 203.0.113.0/24}}]
    ports: [{port: 443}]
  - ports: [{port: 53, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: refused}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 443, endPort: 80}]}]
"""
)
WEB, BATCH, DB, CACHE, JOB = pod("shop/web"), pod("shop/batch"), pod("data/db"), pod("data/cache"), pod("ghost/job")
DB_SERVICE, ECHO = {"service": "data/db"}, {"icmp": {"family": 4, "type": 8}}
UDP, SCTP = {"protocol": "UDP"}, {"protocol": "sctp"}
ALL, NO_INGRESS, NO_EGRESS = "allowed allowed allowed", "denied allowed denied", "denied denied allowed"
OPEN_INGRESS, OPEN_EGRESS = "unknown allowed unknown", "unknown unknown allowed"
UNKNOWN = "unknown unknown unknown"
SHUT = "NetworkPolicy data/db /spec/ingress ingress deny"
OUT = "NetworkPolicy shop/out"


def by_rule(number: int) -> list[str]:
    return [f"NetworkPolicy data/db /spec/ingress/{number}/from/0 ingress allow"]


def test_network_policy_with_an_unknown_plugin(tmp_path: Path) -> None:
    marks(
        tmp_path / "b",
        {"a": PLAIN},
        [
            # named ports, numbers, protocols
            (WEB, (DB, 5432), {}, ALL, by_rule(0)),
            (WEB, (DB, "sql"), {}, ALL, by_rule(0)),
            (WEB, (DB, "5432"), {}, ALL, by_rule(0)),
            (WEB, (DB, 80), {}, NO_INGRESS, [SHUT]),
            (WEB, (DB, 5432), UDP, NO_INGRESS, [SHUT]),
            (WEB, (DB, "nosuch"), {}, UNKNOWN, []),
            (WEB, (DB, None), {}, "conditional allowed conditional", [*by_rule(0), SHUT]),
            # Services: the Service's port, never the target's
            (WEB, (DB_SERVICE, 80), {}, ALL, by_rule(0)),
            (WEB, (DB_SERVICE, "sql"), {}, ALL, by_rule(0)),
            (WEB, (DB_SERVICE, 5432), {}, UNKNOWN, []),
            (WEB, (DB_SERVICE, 80), UDP, UNKNOWN, []),
            (WEB, (ip("10.96.0.9"), 80), {}, ALL, by_rule(0)),
            (WEB, ({"service": "data/head"}, 5432), {}, ALL, by_rule(0)),
            (WEB, ({"service": "data/none"}, 80), {}, UNKNOWN, []),
            (WEB, ({"service": "data/gone"}, 80), {}, UNKNOWN, []),
            (WEB, ({"fqdn": "db.data.svc.cluster.local"}, 80), {}, ALL, by_rule(0)),
            (WEB, ({"fqdn": "db.data.svc"}, 80), {}, ALL, by_rule(0)),
            # endPort, ipBlock with except, outside addresses
            (ip("198.51.100.7"), (DB, 5500), {}, ALL, by_rule(1)),
            (ip("198.51.100.7"), (DB, 6000), {}, ALL, by_rule(1)),
            (ip("198.51.100.7"), (DB, 6001), {}, NO_INGRESS, [SHUT]),
            (ip("198.51.100.7"), (DB, 5500), UDP, NO_INGRESS, [SHUT]),
            (ip("198.51.100.200"), (DB, 5500), {}, NO_INGRESS, [SHUT]),
            (ip("2001:db8::1"), (DB, 5500), {}, NO_INGRESS, [SHUT]),
            (ip("10.0.0.1"), (DB, 5432), {}, ALL, by_rule(0)),  # the address is pod shop/web
            # SCTP only where named
            (CACHE, (DB, 3868), SCTP, ALL, by_rule(2)),
            (CACHE, (DB, 3868), {}, NO_INGRESS, [SHUT]),
            (WEB, (DB, 3868), SCTP, NO_INGRESS, [SHUT]),
            # a namespace without its object: its name is known, its labels are not
            (JOB, (DB, 7000), UDP, ALL, by_rule(3)),
            (JOB, (DB, 9999), {}, OPEN_INGRESS, ["NetworkPolicy data/db /spec/ingress/4/from/0 ingress allow", SHUT]),
            (JOB, (DB, 5432), {}, NO_INGRESS, [SHUT]),  # the pod's own label settles it
            # nodes, the kubelet, the host network
            ({"node": "n1"}, (DB, 1), {}, ALL, []),
            ({"node": "n2"}, (DB, 5432), {}, NO_INGRESS, [SHUT]),
            (ip("172.16.0.1"), (DB, 9), {}, ALL, []),
            (ip("172.16.0.2"), (DB, 9), {}, NO_INGRESS, [SHUT]),
            (pod("data/mon"), (DB, 9), {}, ALL, []),
            (pod("shop/agent"), (DB, 5432), {}, NO_INGRESS, [SHUT]),  # its label app=web does not count
            (pod("shop/agent"), (CACHE, 6379), {}, ALL, []),
            (BATCH, ({"node": "n1"}, 10250), {}, NO_EGRESS, [f"{OUT} /spec/egress egress deny"]),
            (WEB, (pod("shop/agent"), 1), {}, ALL, []),
            ({"node": "n9"}, (DB, 1), {}, UNKNOWN, []),
            # a pod and itself
            (DB, (DB, 5432), {}, OPEN_INGRESS, [SHUT]),
            (DB, (ip("127.0.0.1"), 5432), {}, ALL, []),
            # egress; both sides are said, each refusal by its own policy
            (BATCH, (DB, 5432), {}, NO_INGRESS, [SHUT]),
            (BATCH, (DB, 80), {}, "denied denied denied", [f"{OUT} /spec/egress egress deny", SHUT]),
            (BATCH, (CACHE, 6379), {}, NO_EGRESS, [f"{OUT} /spec/egress egress deny"]),
            (BATCH, (ip("203.0.113.9"), 443), {}, ALL, [f"{OUT} /spec/egress/1/to/0 egress allow"]),
            (BATCH, (ip("203.0.113.9"), 80), {}, NO_EGRESS, [f"{OUT} /spec/egress egress deny"]),
            (BATCH, (ip("8.8.8.8"), 53), UDP, ALL, [f"{OUT} /spec/egress/2 egress allow"]),
            (BATCH, ({"fqdn": "api.example.com"}, 443), {}, "conditional conditional allowed", [f"{OUT} /spec/egress/1/to/0 egress allow", f"{OUT} /spec/egress egress deny"]),
            (BATCH, ({"service": "data/ext"}, 443), {}, "conditional conditional allowed", [f"{OUT} /spec/egress/1/to/0 egress allow", f"{OUT} /spec/egress egress deny"]),
            (BATCH, ({"fqdn": "api.example.com"}, 80), {}, NO_EGRESS, [f"{OUT} /spec/egress egress deny"]),
            (WEB, ({"fqdn": "api.example.com"}, 443), {}, ALL, []),  # the refused policy isolates nobody
            # ICMP
            (WEB, (DB, None), ECHO, OPEN_INGRESS, [SHUT]),
            (WEB, (CACHE, None), ECHO, ALL, []),
            (WEB, (CACHE, None), {"protocol": "ICMP"}, ALL, []),
            # replies are not asked for, and what nobody selects is open
            (DB, (WEB, 40000), {}, ALL, []),
            (WEB, (CACHE, 1), {}, ALL, []),
            # names that lead nowhere
            (pod("shop/nobody"), (DB, 5432), {}, UNKNOWN, []),
            (pod("shop/web", "elsewhere"), (DB, 5432), {}, UNKNOWN, []),
            (WEB, (pod("nowhere/db"), 5432), {}, UNKNOWN, []),
        ],
    )  # fmt: skip


# --- whether ipBlock covers pods --------------------------------------------------------------------------------------

BLOCK = (
    NAMESPACES
    + NODES
    + PODS
    + manifest_pod("shop/dual", "app: dual", "10.0.0.7,fd00::7", "n2")
    + manifest_pod("data/dual", "app: dual", "10.0.0.8,fd00::8", "n1")
    + """---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: data, name: db}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.3/32]}}]}]
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: dual}
spec: {selector: {app: dual}, clusterIP: 10.96.0.20, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: out}
spec: {podSelector: {matchLabels: {app: batch}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}
"""
)
ROUTER = """---
apiVersion: apps/v1
kind: DaemonSet
metadata: {namespace: kube-system, name: kube-router}
spec: {selector: {matchLabels: {k: r}}, template: {metadata: {labels: {k: r}}, spec: {containers: [{name: r, image: x}]}}}
"""
ADMITTED = "NetworkPolicy data/db /spec/ingress/0/from/0 ingress allow"


def test_ip_block_and_pods(tmp_path: Path) -> None:
    certain = [
        (
            BATCH,
            (DB, 80),
            {},
            "denied denied denied",
            [f"{OUT} /spec/egress egress deny", SHUT],
        ),  # excepted, whatever the plugin
        (ip("10.0.0.200"), (DB, 80), {}, ALL, [ADMITTED]),  # in the block, and nobody's address
        ({"node": "n2"}, (DB, 80), {}, NO_INGRESS, [SHUT]),
        ({"node": "n1"}, (DB, 80), {}, ALL, []),
    ]
    told = [
        (WEB, (DB, 80), {}, ALL, [ADMITTED]),
        (ip("10.0.0.1"), (DB, 80), {}, ALL, [ADMITTED]),
        (pod("shop/dual"), (DB, 80), {}, ALL, [ADMITTED]),  # data/db has IPv4 only
        (pod("shop/dual"), (pod("data/dual"), 80), {}, "conditional allowed conditional", [ADMITTED, SHUT]),
        (ip("fd00::7"), (pod("data/dual"), 80), {}, NO_INGRESS, [SHUT]),
        (WEB, (DB, None), ECHO, ALL, [ADMITTED]),
        (
            BATCH,
            ({"service": "shop/dual"}, 80),
            {},
            NO_EGRESS,
            [f"{OUT} /spec/egress egress deny"],
        ),  # translated before
    ]
    open_ = [
        (WEB, (DB, 80), {}, OPEN_INGRESS, [ADMITTED, SHUT]),
        (BATCH, ({"service": "shop/dual"}, 80), {}, OPEN_EGRESS, [f"{OUT} /spec/egress/0/to/0 egress allow", f"{OUT} /spec/egress egress deny"]),
        (BATCH, (ip("10.96.0.20"), 80), {}, OPEN_EGRESS, [f"{OUT} /spec/egress/0/to/0 egress allow", f"{OUT} /spec/egress egress deny"]),
    ]  # fmt: skip
    marks(tmp_path / "told", {"a": BLOCK + ROUTER}, [*certain, *told])
    marks(tmp_path / "open", {"a": BLOCK}, [*certain, *open_])


# --- names inside the cluster, and ports of nodes -----------------------------------------------------------------------

INSIDE = (
    NAMESPACES
    + NODES
    + PODS
    + manifest_pod("data/pg-0", "app: pg", "10.0.0.30", "n1", spec="hostname: pg-0, subdomain: pg,")
    + manifest_pod("data/edge", "app: edge", "10.0.0.31", "n1", "{containerPort: 8443, hostPort: 443}")
    + """---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: pg}
spec: {selector: {app: pg}, clusterIP: None, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: db}
spec: {type: NodePort, selector: {app: db}, clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: sql, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: local}
spec:
  {type: NodePort, externalTrafficPolicy: Local, selector: {app: db}, clusterIP: 10.96.0.8,
   ports: [{port: 80, targetPort: sql, nodePort: 30081}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: data, name: db}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}
"""
)


def test_names_inside_the_cluster_and_ports_of_nodes(tmp_path: Path) -> None:
    """kubernetes.io: "DNS for Services and Pods"; Service, type NodePort and externalTrafficPolicy; ports[].hostPort."""
    client = ip("198.51.100.7")
    marks(
        tmp_path / "b",
        {"a": INSIDE + ROUTER},
        [
            # what a name stands for is asked, never the world outside
            *[(WEB, ({"fqdn": name}, 80), {}, NO_INGRESS, [SHUT]) for name in (
                "db.data.svc.cluster.local", "db.data.svc.cluster.local.", "db.data.svc", "db.data", "DB.data.svc.cluster.local")],
            (CACHE, ({"fqdn": "db"}, 80), {}, NO_INGRESS, [SHUT]),  # the search list: its own namespace
            (WEB, ({"fqdn": "pg-0.pg.data.svc.cluster.local"}, 5432), {}, NO_INGRESS, [SHUT]),
            (WEB, ({"fqdn": "10-0-0-2.data.pod.cluster.local"}, 5432), {}, NO_INGRESS, [SHUT]),
            (WEB, ({"fqdn": "10.0.0.2"}, 5432), {}, NO_INGRESS, [SHUT]),
            (client, ({"fqdn": "pg.data.svc.cluster.local"}, 5432), {}, ALL, by_rule(0)),
            (WEB, ({"fqdn": "gone.data.svc.cluster.local"}, 80), {}, UNKNOWN, []),
            (WEB, ({"fqdn": "pg-9.pg.data.svc.cluster.local"}, 5432), {}, UNKNOWN, []),
            (WEB, ({"fqdn": "what.cluster.local"}, 80), {}, UNKNOWN, []),
            (WEB, ({"fqdn": "db.data.example.com"}, 80), {}, ALL, []),
            # a node port leads to the pods; the client's address arrives with the policy Local only
            (client, ({"node": "n1"}, 30081), {}, ALL, by_rule(0)),
            (client, (ip("172.16.0.1"), 30081), {}, ALL, by_rule(0)),
            (client, ({"node": "n1"}, 30080), {}, NO_INGRESS, [SHUT]),
            (ip("203.0.113.5"), ({"node": "n1"}, 30081), {}, NO_INGRESS, [SHUT]),
            (client, ({"node": "n1"}, 443), {}, ALL, by_rule(0)),  # a host port: pod data/edge
            (ip("203.0.113.5"), ({"node": "n1"}, 443), {}, NO_INGRESS, [SHUT]),
            (client, ({"node": "n2"}, 443), {}, ALL, []),  # not on that node
            (client, ({"node": "n1"}, 22), {}, ALL, []),  # the node itself
            (client, ({"node": "n1"}, 30080), UDP, ALL, []),
            (WEB, ({"node": "n1"}, 30080), {}, UNKNOWN, []),
        ],
    )  # fmt: skip


# --- Cilium -----------------------------------------------------------------------------------------------------------


def agent(version: str, **settings: str) -> str:
    """cilium-config and a pod of the agent."""
    data = "".join(f'  {key.replace("_", "-")}: "{value}"\n' for key, value in settings.items())
    return f"""---
apiVersion: v1
kind: ConfigMap
metadata: {{namespace: kube-system, name: cilium-config}}
data:
  enable-ipv4: "true"
  enable-ipv6: "false"
{data}---
apiVersion: v1
kind: Pod
metadata: {{namespace: kube-system, name: cilium-x, labels: {{k8s-app: cilium}}}}
spec: {{nodeName: n1, hostNetwork: true, containers: [{{name: cilium-agent, image: "quay.io/cilium/cilium:{version}"}}]}}
status: {{phase: Running, podIP: 172.16.0.1, podIPs: [{{ip: 172.16.0.1}}]}}
"""


CILIUM = (
    NAMESPACES
    + NODES
    + manifest_pod("shop/web", "app: web", "10.0.0.1", "n2")
    + manifest_pod("shop/batch", "app: batch", "10.0.0.3", "n2")
    + manifest_pod("shop/api", "app: api", "10.0.0.2", "n1", "{name: http, containerPort: 8080}")
    + manifest_pod("data/tool", "app: tool", "10.0.0.4", "n2")
    + manifest_pod("data/agent", "app: web", "172.16.0.2", "n2", spec="hostNetwork: true,")
    + manifest_pod(
        "kube-system/dns", "k8s-app: kube-dns", "10.0.0.53", "n1", "{name: dns, containerPort: 53, protocol: UDP}"
    )
    + """---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: api}
spec: {selector: {app: api}, clusterIP: 10.96.0.2, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: kube-system, name: kube-dns}
spec: {selector: {k8s-app: kube-dns}, clusterIP: 10.96.0.53, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {namespace: shop, name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [{method: GET, path: "/api/.*"}]}}]
  - fromEntities: [host, remote-node]
    toPorts: [{ports: [{port: "9090", protocol: TCP}]}]
  - fromCIDR: [198.51.100.0/24]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": data, app: tool}}]
    icmps: [{fields: [{family: IPv4, type: 8}]}]
  - fromEntities: [cluster]
    toPorts: [{ports: [{port: "7000", endPort: 7010}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {namespace: shop, name: out}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, "k8s:k8s-app": kube-dns}}]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
  - toFQDNs: [{matchPattern: "*.example.com"}]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
  - toEndpoints: [{}]
    toPorts: [{ports: [{port: http, protocol: TCP}]}]
  - toEndpoints: [{matchLabels: {app: api}}]
    toPorts: [{ports: [{port: "7000", endPort: 7010}]}]
  egressDeny:
  - toCIDR: [203.0.113.0/24]
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: no-batch}
spec:
  endpointSelector: {}
  enableDefaultDeny: {ingress: false}
  ingressDeny: [{fromEndpoints: [{matchLabels: {app: batch}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: np}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 8443}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {namespace: shop, name: mixed}
spec:
  endpointSelector: {matchLabels: {app: batch}}
  egress: [{toEndpoints: [{}], toCIDR: [0.0.0.0/0]}]
"""
)
API, TOOL = pod("shop/api"), pod("data/tool")
GET, POST = {"http": {"method": "GET", "path": "/api/x"}}, {"http": {"method": "POST", "path": "/api/x"}}
C_OUT, C_API = "CiliumNetworkPolicy shop/out", "CiliumNetworkPolicy shop/api"
CLOSED_API = [f"{C_API} /spec/ingress ingress deny", "NetworkPolicy shop/np /spec/ingress ingress deny"]
NAMED = f"{C_OUT} /spec/egress/2/toEndpoints/0 egress allow"
NO_BATCH = "CiliumClusterwideNetworkPolicy /no-batch /spec/ingressDeny/0/fromEndpoints/0 ingress deny"
CLOSED_WEB = f"{C_OUT} /spec/egress egress deny"


def fqdn(name: str) -> Raw:
    return {"fqdn": name}


def test_cilium(tmp_path: Path) -> None:
    marks(
        tmp_path / "b",
        {"west": CILIUM + agent("v1.18.5")},
        [
            # HTTP rules, anchored expressions
            (WEB, (API, 8080), GET, ALL, [NAMED, f"{C_API} /spec/ingress/0/fromEndpoints/0 ingress allow"]),
            (WEB, (API, "http"), GET, ALL, [NAMED, f"{C_API} /spec/ingress/0/fromEndpoints/0 ingress allow"]),
            (WEB, (API, 8080), POST, NO_INGRESS, CLOSED_API),
            (WEB, (API, 8080), {"http": {"method": "GET", "path": "/api"}}, NO_INGRESS, CLOSED_API),
            (WEB, (API, 8080), {}, "conditional allowed conditional", [f"{C_API} /spec/ingress/0/fromEndpoints/0 ingress allow", *CLOSED_API]),
            (WEB, ({"service": "shop/api"}, 80), GET, ALL, [NAMED, f"{C_API} /spec/ingress/0/fromEndpoints/0 ingress allow"]),
            (WEB, ({"service": "shop/api"}, 8080), GET, UNKNOWN, []),
            (WEB, (ip("10.96.0.2"), 80), GET, ALL, [NAMED, f"{C_API} /spec/ingress/0/fromEndpoints/0 ingress allow"]),
            # a deny beats whatever allows, in whichever kind
            (BATCH, (API, 8080), GET, NO_INGRESS, [NO_BATCH]),
            (BATCH, (API, 7000), {}, NO_INGRESS, [NO_BATCH]),
            (BATCH, (TOOL, 1), {}, NO_INGRESS, [NO_BATCH]),  # and in every namespace
            (TOOL, (WEB, 1), {}, ALL, []),  # enableDefaultDeny false: what it does not deny is open
            (BATCH, (ip("8.8.8.8"), 1), {}, ALL, []),  # the policy of two kinds of peers in one rule does not count
            # entities, nodes, the host network
            ({"node": "n2"}, (API, 9090), {}, ALL, [f"{C_API} /spec/ingress/1/fromEntities/1 ingress allow"]),
            ({"node": "n2"}, (API, 8080), GET, NO_INGRESS, CLOSED_API),
            ({"node": "n1"}, (API, 1), {}, ALL, []),  # its own node
            (ip("172.16.0.1"), (API, 1), {}, ALL, []),  # the kubelet
            (pod("data/agent"), (API, 9090), {}, ALL, [f"{C_API} /spec/ingress/1/fromEntities/1 ingress allow"]),
            (pod("data/agent"), (API, 8080), GET, NO_INGRESS, CLOSED_API),  # labels of host-network pods count for nothing
            (TOOL, (API, 7005), UDP, ALL, [f"{C_API} /spec/ingress/4/fromEntities/0 ingress allow"]),
            (TOOL, (API, 7011), {}, NO_INGRESS, CLOSED_API),
            (ip("198.51.100.9"), (API, 7005), {}, NO_INGRESS, CLOSED_API),
            (WEB, (API, 7010), {}, ALL, [f"{C_OUT} /spec/egress/3/toEndpoints/0 egress allow", f"{C_API} /spec/ingress/4/fromEntities/0 ingress allow"]),
            # CIDRs never match managed pods, in either kind of policy
            (ip("198.51.100.9"), (API, 443), {}, ALL, [f"{C_API} /spec/ingress/2/fromCIDR/0 ingress allow"]),
            (ip("198.51.100.9"), (API, 80), {}, NO_INGRESS, CLOSED_API),
            (TOOL, (API, 8443), {}, NO_INGRESS, CLOSED_API),
            (ip("10.200.0.1"), (API, 8443), {}, ALL, ["NetworkPolicy shop/np /spec/ingress/0/from/0 ingress allow"]),
            # ICMP by icmps only
            (TOOL, (API, None), ECHO, ALL, [f"{C_API} /spec/ingress/3/fromEndpoints/0 ingress allow"]),
            (TOOL, (API, None), {"icmp": {"family": "IPv4", "type": 13}}, NO_INGRESS, CLOSED_API),
            (TOOL, (API, None), {"icmp": {"family": 6, "type": 8}}, NO_INGRESS, CLOSED_API),
            (WEB, (API, None), ECHO, "denied denied denied", [CLOSED_WEB, *CLOSED_API]),
            (WEB, (TOOL, None), ECHO, NO_EGRESS, [CLOSED_WEB]),
            # names: learnt by the DNS rule; a star stays in its label
            # (and an address of it may lie in the range that is denied first)
            (WEB, (fqdn("www.example.com"), 443), {}, "conditional conditional allowed", [f"{C_OUT} /spec/egressDeny/0/toCIDR/0 egress deny", f"{C_OUT} /spec/egress/1/toFQDNs/0 egress allow"]),
            (WEB, (fqdn("a.b.example.com"), 443), {}, NO_EGRESS, [CLOSED_WEB]),
            (WEB, (fqdn("example.com"), 443), {}, NO_EGRESS, [CLOSED_WEB]),
            (WEB, (fqdn("www.example.com"), 80), {}, NO_EGRESS, [CLOSED_WEB]),
            (WEB, (ip("93.184.216.34"), 80), {}, NO_EGRESS, [CLOSED_WEB]),
            (WEB, (ip("93.184.216.34"), 443), {}, OPEN_EGRESS, [f"{C_OUT} /spec/egress/1/toFQDNs/0 egress allow", CLOSED_WEB]),
            (WEB, (ip("203.0.113.5"), 443), {}, NO_EGRESS, [f"{C_OUT} /spec/egressDeny/0/toCIDR/0 egress deny"]),
            (WEB, ({"service": "kube-system/kube-dns"}, 53), UDP, ALL, [f"{C_OUT} /spec/egress/0/toEndpoints/0 egress allow"]),
            (WEB, ({"service": "kube-system/kube-dns"}, 53), {}, UNKNOWN, []),  # the Service has UDP only
            # a name of a Service is its pods, which toFQDNs never covers
            (WEB, (fqdn("api.shop.svc.cluster.local"), 80), GET, ALL, [NAMED, f"{C_API} /spec/ingress/0/fromEndpoints/0 ingress allow"]),
            # scope: {} is the policy's own namespace
            (WEB, (TOOL, 8080), {}, NO_EGRESS, [CLOSED_WEB]),
            (WEB, (BATCH, 8080), {}, ALL, [NAMED]),  # before 1.20 the one number of the name reaches every peer
            (API, (WEB, 1), {}, ALL, []),
        ],
    )  # fmt: skip


def test_cilium_settings(tmp_path: Path) -> None:
    """The same objects under other versions and settings."""
    at_destination = (
        WEB,
        (BATCH, 8080),
        {},
        NO_EGRESS,
        [CLOSED_WEB],
    )  # since 1.20 a name is looked up on the destination
    marks(tmp_path / "new", {"west": CILIUM + agent("v1.20.2")}, [at_destination])
    learnt = f"{C_OUT} /spec/egress/1/toFQDNs/0 egress allow"
    names = [(WEB, (fqdn(name), 443), {}, ALL, [learnt]) for name in ("www.example.com", "WWW.Example.Com.")]
    marks(tmp_path / "names", {"west": CILIUM.replace("  egressDeny:\n  - toCIDR: [203.0.113.0/24]\n", "") + agent("v1.18.5")}, names)  # fmt: skip
    off = [(BATCH, (API, 8080), POST, ALL, []), (WEB, (TOOL, 1), {}, ALL, [])]
    marks(tmp_path / "never", {"west": CILIUM + agent("v1.18.5", enable_policy="never")}, off)
    setting = "ConfigMap kube-system/cilium-config /data/enable-policy"
    plain = CILIUM.split("---\napiVersion: cilium.io/v2")[0]
    always = [(TOOL, (BATCH, 1), {}, "denied denied denied", [f"{setting} egress deny", f"{setting} ingress deny"])]
    marks(tmp_path / "always", {"west": plain + agent("v1.18.5", enable_policy="always")}, always)
    own = [
        ({"node": "n1"}, (API, 1), {}, NO_INGRESS, CLOSED_API),
        ({"node": "n1"}, (API, 9090), {}, ALL, [f"{C_API} /spec/ingress/1/fromEntities/0 ingress allow"]),
    ]
    marks(tmp_path / "own", {"west": CILIUM + agent("v1.18.5", allow_localhost="policy")}, own)
    by_cidr = CILIUM.replace("fromCIDR: [198.51.100.0/24]", "fromCIDR: [172.16.0.0/16]")
    nodes = [({"node": "n2"}, (API, 443), {}, ALL, [f"{C_API} /spec/ingress/2/fromCIDR/0 ingress allow"])]
    marks(tmp_path / "cidr", {"west": by_cidr + agent("v1.18.5", policy_cidr_match_mode="nodes")}, nodes)
    marks(
        tmp_path / "no-cidr",
        {"west": by_cidr + agent("v1.18.5")},
        [({"node": "n2"}, (API, 443), {}, NO_INGRESS, CLOSED_API)],
    )


EAST = (
    NAMESPACES
    + manifest_pod("shop/web", "app: web", "10.1.0.1", "e1")
    + manifest_pod("shop/cron", "app: cron", "10.1.0.2", "e1")
    + """---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: far}
spec: {selector: {app: none}, clusterIP: 10.97.0.1, ports: [{port: 80}]}
"""
)
WEST = (
    NAMESPACES
    + manifest_pod("shop/web", "app: web", "10.2.0.9", "w2")
    + manifest_pod("shop/api", "app: api", "10.2.0.1", "w1", "{name: http, containerPort: 8080}")
    + """---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {namespace: shop, name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: http, protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: cron, io.cilium.k8s.policy.cluster: east}}]
  - fromEntities: [cluster]
    toPorts: [{ports: [{port: "9"}]}]
  - fromCIDR: [10.1.0.0/16]
    toPorts: [{ports: [{port: "10"}]}]
"""
)
M_SHUT = "CiliumNetworkPolicy shop/api /spec/ingress ingress deny"
M_WEB = "CiliumNetworkPolicy shop/api /spec/ingress/0/fromEndpoints/0 ingress allow"


@pytest.mark.parametrize(
    ("version", "setting", "expected", "by"),
    [
        ("v1.18.5", {}, ALL, [M_WEB]),
        ("v1.19.1", {}, NO_INGRESS, [M_SHUT]),
        ("v1.19.1", {"policy_default_local_cluster": "false"}, ALL, [M_WEB]),
        ("v1.18.5", {"policy_default_local_cluster": "true"}, NO_INGRESS, [M_SHUT]),
        ("latest", {}, OPEN_INGRESS, [M_WEB, M_SHUT]),  # both readings
    ],
)
def test_clustermesh(tmp_path: Path, version: str, setting: dict[str, str], expected: str, by: list[str]) -> None:
    here = agent(version, cluster_name="west", cluster_id="2", **setting)
    there = agent(version, cluster_name="east", cluster_id="1", **setting)
    api, cron = pod("shop/api", "west"), pod("shop/cron", "east")
    cluster = ["CiliumNetworkPolicy shop/api /spec/ingress/1/fromEndpoints/0 ingress allow"]
    marks(
        tmp_path / "b",
        {"east": EAST + there, "west": WEST + here},
        [
            (pod("shop/web", "east"), (api, 8080), {}, expected, by),
            (pod("shop/web"), (api, "http"), {}, expected, by),  # not said: the source's cluster
            (ip("10.1.0.1"), (api, 8080), {}, expected, by),
            (pod("shop/web", "west"), (api, 8080), {}, ALL, [M_WEB]),
            (cron, (api, 1), {}, ALL, cluster),  # says its cluster
            (cron, (pod("shop/api"), 1), {}, ALL, cluster),  # only west has one
            (pod("shop/web", "east"), (api, 9), {}, NO_INGRESS, [M_SHUT]),  # `cluster` is the local one
            (pod("shop/web", "west"), (api, 9), {}, ALL, ["CiliumNetworkPolicy shop/api /spec/ingress/2/fromEntities/0 ingress allow"]),
            (pod("shop/web", "east"), (api, 10), {}, NO_INGRESS, [M_SHUT]),  # CIDRs match no meshed pod
            (ip("10.1.0.77"), (api, 10), {}, ALL, ["CiliumNetworkPolicy shop/api /spec/ingress/3/fromCIDR/0 ingress allow"]),
            (pod("shop/web", "south"), (api, 8080), {}, UNKNOWN, []),
            (cron, ({"service": "shop/far"}, 80), {}, UNKNOWN, []),
            (api, (cron, 1), {}, ALL, []),
        ],
    )  # fmt: skip


# --- the admin tiers --------------------------------------------------------------------------------------------------

ADMIN = (
    NAMESPACES
    + NODES
    + PODS
    + ROUTER
    + """---
apiVersion: v1
kind: Namespace
metadata: {name: ops, labels: {team: ops}}
"""
    + manifest_pod("ops/prom", "app: prom", "10.0.0.6", "n2")
    + """---
apiVersion: v1
kind: Service
metadata: {namespace: data, name: cache}
spec: {selector: {app: cache}, clusterIP: 10.96.0.4, ports: [{port: 6379}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: guard}
spec:
  priority: 10
  subject: {namespaces: {matchLabels: {team: b}}}
  ingress:
  - action: Allow
    from: [{namespaces: {matchLabels: {team: ops}}}]
    ports: [{namedPort: metrics}]
  - action: Deny
    from: [{namespaces: {matchLabels: {team: a}}}]
    ports: [{portNumber: {port: 22}}]
  - action: Pass
    from: [{pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}}]
    ports: [{portRange: {start: 5432, end: 5440}}]
  - action: Deny
    from: [{namespaces: {}}]
    ports: [{portNumber: {protocol: TCP, port: 5432}}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: nonsense}
spec:
  priority: 1
  subject: {namespaces: {}}
  ingress: [{action: Accept, from: [{namespaces: {}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: leave}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {matchLabels: {team: a}}}
  egress:
  - {action: Accept, to: [{domainNames: ["*.example.com"]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {action: Accept, to: [{networks: [10.0.0.0/8]}]}
  - {action: Accept, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {number: 10250}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0]}], protocols: [{tcp: {}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: data, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
"""
)
LEAVE, GUARD = "ClusterNetworkPolicy /leave /spec/egress", "AdminNetworkPolicy /guard /spec/ingress"
IN_CLUSTER = f"{LEAVE}/1/to/0 egress allow"
BASE = "BaselineAdminNetworkPolicy /default /spec/ingress/0/from/0 ingress deny"


def test_admin_tiers(tmp_path: Path) -> None:
    marks(
        tmp_path / "b",
        {"a": ADMIN},
        [
            (pod("ops/prom"), (DB, 9102), {}, ALL, [f"{GUARD}/0/from/0 ingress allow"]),  # before NetworkPolicy
            (pod("ops/prom"), (DB, "metrics"), {}, ALL, [f"{GUARD}/0/from/0 ingress allow"]),
            (pod("ops/prom"), (DB, 9103), {}, NO_INGRESS, [SHUT]),
            (pod("ops/prom"), (CACHE, 9102), {}, NO_INGRESS, [BASE]),  # no such port name there; nothing isolates it
            (WEB, (DB, 22), {}, NO_INGRESS, [f"{GUARD}/1/from/0 ingress deny"]),
            (WEB, (DB, 5432), {}, ALL, [IN_CLUSTER, by_rule(0)[0]]),  # passed on, and NetworkPolicy allows
            (WEB, (DB, 5440), {}, NO_INGRESS, [SHUT]),  # passed on, and NetworkPolicy is final
            (BATCH, (DB, 5432), {}, NO_INGRESS, [f"{GUARD}/3/from/0 ingress deny"]),
            (BATCH, (DB, 5432), UDP, NO_INGRESS, [SHUT]),
            (BATCH, (DB, 8080), {}, NO_INGRESS, [SHUT]),
            (CACHE, (DB, 5432), {}, NO_INGRESS, [f"{GUARD}/3/from/0 ingress deny"]),
            (WEB, (CACHE, 6379), {}, NO_INGRESS, [BASE]),
            (WEB, ({"service": "data/cache"}, 6379), {}, NO_INGRESS, [BASE]),
            (WEB, (BATCH, 80), SCTP, NO_INGRESS, [BASE]),
            (WEB, (CACHE, None), ECHO, NO_INGRESS, [BASE]),  # a rule without ports holds ICMP too
            (ip("8.8.8.8"), (WEB, 80), {}, ALL, []),  # `namespaces` are pods, not the world
            (ip("8.8.8.8"), (DB, 5432), {}, NO_INGRESS, [SHUT]),
            ({"node": "n2"}, (DB, 5432), {}, NO_INGRESS, [SHUT]),
            ({"node": "n1"}, (DB, 5432), {}, ALL, []),
            ({"node": "n1"}, (CACHE, 6379), {}, ALL, []),
            (pod("data/mon"), (CACHE, 6379), {}, ALL, []),  # the host network is in no peer of pods
            (DB, (pod("data/mon"), 9100), {}, ALL, []),  # nor a subject
            # what leaves
            (WEB, (fqdn("www.example.com"), 443), {}, ALL, [f"{LEAVE}/0/to/0 egress allow"]),
            (WEB, (fqdn("a.b.example.com"), 443), {}, ALL, [f"{LEAVE}/0/to/0 egress allow"]),
            (WEB, (fqdn("www.example.com"), 80), {}, "conditional conditional allowed", [IN_CLUSTER, f"{LEAVE}/3/to/0 egress deny"]),
            (WEB, (ip("8.8.8.8"), 443), {}, OPEN_EGRESS, [f"{LEAVE}/0/to/0 egress allow", f"{LEAVE}/3/to/0 egress deny"]),
            (WEB, (ip("8.8.8.8"), 80), {}, NO_EGRESS, [f"{LEAVE}/3/to/0 egress deny"]),
            (WEB, (ip("8.8.8.8"), 53), UDP, ALL, []),  # no rule is about it
            (WEB, (ip("2001:db8::1"), 80), {}, ALL, []),
            (WEB, ({"node": "n1"}, 10250), {}, ALL, [f"{LEAVE}/2/to/0 egress allow"]),
            (WEB, ({"node": "n1"}, 22), {}, NO_EGRESS, [f"{LEAVE}/3/to/0 egress deny"]),
            (WEB, (pod("data/mon"), 10250), {}, ALL, [f"{LEAVE}/2/to/0 egress allow"]),
            (DB, (ip("8.8.8.8"), 80), {}, ALL, []),  # not its subject
            # a pod and itself: its own address is not subject, its own Service is
            (CACHE, (CACHE, 6379), {}, ALL, []),
            (CACHE, ({"service": "data/cache"}, 6379), {}, NO_INGRESS, [BASE]),
        ],
    )  # fmt: skip


# --- lines that are no questions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "not JSON"),
        ('{"id": 1, "source"', "not JSON"),
        ('{"id": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"id": ' + "9" * 5000 + "}", "not JSON"),
        ("null", "not an object"),
        ('"text"', "not an object"),
        ("{}", "/source: required value"),
        ('{"source": {}, "destination": {"pod": "data/db"}}', "/source: must be a pod"),
        ('{"source": "shop/web", "destination": {"pod": "data/db"}}', "/source: must be an object"),
        ('{"source": {"pod": ["shop"]}, "destination": {"pod": "data/db"}}', "/source/pod: must be a string"),
        ('{"source": {"pod": "shop/web/x"}, "destination": {"pod": "data/db"}}', "/source/pod"),
        ('{"source": {"fqdn": "a.org"}, "destination": {"pod": "data/db"}}', "a source is a pod, an ip or a node"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "port": 0}', "/port"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "port": 65536}', "/port"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "port": 80.5}', "/port"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "port": true}', "/port"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "port": "' + "9" * 5000 + '"}', "/port"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "protocol": 6}', "/protocol"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "icmp": {"family": 5}}', "/icmp/family"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "icmp": {"type": "ping"}}', "/icmp/type"),
        ('{"source": {"pod": "shop/web"}, "destination": {"pod": "data/db"}, "http": []}', "/http"),
        ('{"source": {"ip": "10.0.0.256"}, "destination": {"pod": "data/db"}}', "/source/ip"),
        ('{"source": {"ip": "10.0.0.0/8"}, "destination": {"pod": "data/db"}}', "/source/ip"),
    ],
)
def test_a_line_that_is_no_question_gets_its_answer_and_the_next_one_too(tmp_path: Path, line: str, why: str) -> None:
    good = json.dumps({"id": "good", "source": WEB, "destination": DB, "port": 5432})
    bad, after = exam(tmp_path / "b", {"a": PLAIN}, [line, "", good])
    assert (bad["verdict"], bad["egress"], bad["ingress"], bad["deciding"]) == ("unknown", "unknown", "unknown", [])
    assert why in bad["reason"]
    assert (after["id"], after["verdict"]) == ("good", "allowed")


def test_ids_and_texts_of_every_sort_come_back_on_one_line(tmp_path: Path) -> None:
    ids = ["\ud800", "a\u2028b\x85c", {"n": [1, None]}, 2**70, None, "ü", ["x"] * 3]
    lines = [json.dumps({"id": each, "source": WEB, "destination": DB, "port": 5432}) for each in ids]
    lines.append(
        '{"id": "raw \u2028 \u0085 line", "source": {"pod": "shop/web"}, "destination": {"pod": "data/\u2028"}}'
    )
    found = exam(tmp_path / "b", {"a": PLAIN}, ["\ufeff" + lines[0], *lines[1:]])
    assert [a["id"] for a in found] == [*ids, "raw \u2028 \u0085 line"]
    assert [a["verdict"] for a in found] == ["allowed"] * len(ids) + ["unknown"]


def test_bytes_that_are_no_text_spoil_one_line_only(tmp_path: Path) -> None:
    good = json.dumps({"id": 2, "source": WEB, "destination": DB, "port": 5432}).encode()
    questions = tmp_path / "q.jsonl"
    questions.write_bytes(b'{"id": 1, "source": {"pod": "shop/\xff\xfe"}\n' + good + b"\r\n")
    (tmp_path / "a.yaml").write_text(PLAIN)
    result = CliRunner().invoke(app, ["check", "--queries", str(questions), "--bundle", str(tmp_path / "a.yaml"), "-o", "jsonl"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [(a["id"], a["verdict"]) for a in map(json.loads, result.stdout.splitlines())] == [(None, "unknown"), (2, "allowed")]  # fmt: skip
