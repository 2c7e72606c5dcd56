"""Which pod really reaches which: pods in several namespaces, a prober in every pod's network, and a way to know
when the policy engine has caught up.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mcrig import images, manifests
from mcrig.cluster import Cluster
from mcrig.machines import Machine

Outcome = Literal["open", "refused", "silent", "unreachable"]

_SERVER = """
import socket, threading, time
def tcp(port):
    server = socket.create_server(("0.0.0.0", port), backlog=256)
    while True:
        server.accept()[0].close()
def udp(port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    while True:
        data, peer = server.recvfrom(64)
        server.sendto(data, peer)
for serve, port in ((tcp, 8080), (tcp, 8081), (udp, 8080)):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
while True:
    time.sleep(3600)
"""


@dataclass(frozen=True, slots=True)
class PodPlan:
    """`port` is the named container port: name, protocol, number. All pods serve TCP 8080 and 8081 and UDP 8080."""

    namespace: str
    name: str
    labels: dict[str, str]
    port: tuple[str, str, int] | None = None

    def manifest(self) -> dict[str, Any]:
        ports = []
        if self.port:
            name, protocol, number = self.port
            ports = [{"name": name, "containerPort": number, "protocol": protocol}]
        container = {
            "name": "server", "image": images.PYTHON, "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", _SERVER], "ports": ports,
        }  # fmt: skip
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
        }


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt from the pod with address `source`."""

    source: str
    destination: str
    protocol: Literal["TCP", "UDP"]
    port: int


@dataclass(slots=True)
class Prober:
    """A process on a node that opens sockets in the network of any pod there."""

    process: subprocess.Popen[str] = field(init=False)
    node: Machine

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            self.node.command("python3", "-I", str(Path(__file__).with_name("probe.py"))),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, probes: Sequence[Probe], timeout: float = 0.7) -> list[Outcome]:
        assert self.process.stdin is not None and self.process.stdout is not None
        plain = [[probe.source, probe.destination, probe.protocol, probe.port] for probe in probes]
        self.process.stdin.write(json.dumps({"timeout": timeout, "probes": plain}) + "\n")
        self.process.stdin.flush()
        outcomes: list[Outcome] = json.loads(self.process.stdout.readline())
        return outcomes

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


_numbers = itertools.count(time.time_ns() // 1_000_000)


def settle(cluster: Cluster, namespace: str, timeout: float = 20) -> None:
    """Returns when the policy engine enforces what was applied before: watches keep order, so a policy made last
    and seen in its rules means that all earlier ones are there. It stays: taking it away would set the engine to work
    again. Raises TimeoutError.
    """
    name = f"canary-{next(_numbers)}"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"no-pod": "has-this"}}, "policyTypes": ["Ingress"], "ingress": [{}]},
    }
    cluster.request("POST", f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", policy)
    deadline = time.monotonic() + timeout
    # The listing fails when a set goes away under it; then the next one tells.
    while name not in cluster.node.run("iptables-save", "-t", "filter", check=False):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{cluster.site.name}: the policy engine has not taken up {name} after {timeout:.0f} s")
        time.sleep(0.03)


def forget_flows(cluster: Cluster, ports: Sequence[tuple[str, int]]) -> None:
    """Drops what the node tracks of flows to these ports (protocol, number): what was let in once stays in, and a later
    probe may by chance leave from the same port.
    """
    for protocol, port in ports:
        cluster.node.run("conntrack", "-D", "-p", protocol.lower(), "--dport", str(port), check=False)


def create(cluster: Cluster, namespaces: dict[str, dict[str, str]], pods: Sequence[PodPlan]) -> dict[str, str]:
    """Makes namespaces (name to labels) and pods, waits until they run; gives `namespace/name` to address."""
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in namespaces.items()
    ]
    cluster.apply(manifests.dump(made))
    for name in namespaces:
        deadline = time.monotonic() + 20
        while not cluster.kubectl("get", "serviceaccount", "default", "-n", name, "-o", "name", check=False):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{cluster.site.name}: namespace {name} has no service account")
            time.sleep(0.1)
    cluster.apply(manifests.dump([pod.manifest() for pod in pods]))
    addresses = {}
    for name in namespaces:
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "-n", name, "--timeout=60s", timeout=70)
        for pod in json.loads(cluster.kubectl("get", "pods", "-n", name, "-o", "json"))["items"]:
            addresses[f"{name}/{pod['metadata']['name']}"] = pod["status"]["podIP"]
    return addresses
