"""Faults injected for real between two real clusters: `kubectl mcdoctor diagnose` names each on rank 1."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcrig import manifests, matrix
from mcrig import rig as rigs
from mcrig.program import diagnose

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]


def patch_backend(rig: rigs.Rig, **changes: Any) -> None:
    """Applies Service `backend` of B with other fields in its spec."""
    service: dict[str, Any] = manifests.backend_service()
    service["spec"] |= changes
    rig.b.apply(manifests.dump([service]))


def redeploy_backend(rig: rigs.Rig, environment: dict[str, str], ready_port: int | None, wait: bool = True) -> None:
    rig.b.kubectl("delete", "deployment", "backend", "-n", "demo", "--wait=true")
    rig.b.kubectl("wait", "--for=delete", "pod", "-l", "app=backend", "-n", "demo", "--timeout=30s")
    rig.b.apply(manifests.dump([manifests.deployment("backend", environment, ready_port)]))
    if wait:
        rig.b.kubectl("rollout", "status", "deployment/backend", "-n", "demo", "--timeout=60s", timeout=70)
    else:
        rig.b.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod", "-l", "app=backend", "-n", "demo",
                      "--timeout=40s", timeout=50)  # fmt: skip


def policy(name: str, **spec: Any) -> str:
    return manifests.dump(
        [
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": "demo"},
                "spec": spec,
            }
        ]
    )


def deny_ingress(rig: rigs.Rig) -> None:
    rig.b.apply(policy("default-deny", podSelector={}, policyTypes=["Ingress"]))
    matrix.settle(rig.b, "demo")


def egress_without_dns(rig: rigs.Rig) -> None:
    rules = [{"to": [{"ipBlock": {"cidr": "10.120.0.0/16"}}, {"ipBlock": {"cidr": "10.20.0.0/16"}}]}]
    rig.a.apply(policy("only-cluster-b", podSelector={}, policyTypes=["Egress"], egress=rules))
    matrix.settle(rig.a, "demo")


def wrong_stub_zone(rig: rigs.Rig) -> None:
    corefile = manifests.corefile(rig.a.site, stub_target="192.168.20.99:30053")
    rig.a.apply(manifests.coredns(rig.a.site, corefile))
    rig.restart_dns(rig.a)


def misnamed_stub_zone(rig: rigs.Rig) -> None:
    corefile = manifests.corefile(rig.a.site).replace("cluster-b.internal:53", "cluster-c.internal:53")
    rig.a.apply(manifests.coredns(rig.a.site, corefile))
    rig.restart_dns(rig.a)


def unknown_name(rig: rigs.Rig) -> None:
    service = json.loads(manifests.demo(rig.a.site))["items"][-1]
    service["spec"]["externalName"] = "backnd.demo.svc.cluster-b.internal"
    rig.a.apply(manifests.dump([service]))
    time.sleep(6)  # what CoreDNS has in its cache is good for 5 s


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    id: str
    inject: Callable[[rigs.Rig], None]
    causes: tuple[str, ...]
    verdicts: tuple[str, ...] = ("broken",)
    hop: str = ""


FAULTS = (
    Fault("ingress-default-deny", deny_ingress, ("netpol-ingress-not-allowed",), hop="dest-ingress-policy"),
    Fault("egress-without-dns", egress_without_dns, ("netpol-egress-dns-blocked",)),
    Fault("wrong-selector", lambda rig: patch_backend(rig, selector={"app": "bakend"}), ("service-selector-no-match",)),
    Fault(
        "wrong-target-port",
        lambda rig: patch_backend(rig, ports=[{"name": "http", "port": 80, "targetPort": 8088}]),
        ("service-targetport-mismatch",),
    ),
    Fault(
        "pod-not-ready",
        lambda rig: redeploy_backend(rig, {}, 9999, wait=False),
        ("readiness-failing-no-endpoints",),
    ),
    Fault("stub-zone-wrong", wrong_stub_zone, ("stub-domain-misconfigured",)),
    Fault("stub-zone-misnamed", misnamed_stub_zone, ("stub-domain-misconfigured",)),
    Fault("route-missing", lambda rig: rig.network.route_missing(), ("peering-route-missing",), hop="network"),
    Fault("port-dropped", lambda rig: rig.network.filter_drop(80), ("cloud-firewall-blocks-port",), hop="network"),
    Fault("port-rejected", lambda rig: rig.network.filter_reject(80), ("cloud-firewall-blocks-port",), hop="network"),
    Fault(
        "port-forbidden", lambda rig: rig.network.filter_prohibit(80), ("cloud-firewall-blocks-port",), hop="network"
    ),
    Fault(
        "mtu-black-hole",
        lambda rig: rig.network.mtu(1400, icmp=False),
        ("icmp-frag-needed-blocked", "pmtu-blackhole"),
        ("broken", "degraded"),  # small requests pass
        hop="network",
    ),
    Fault("unknown-name", unknown_name, ("alias-target-missing", "dns-record-missing")),
    Fault(
        "bound-to-localhost",
        lambda rig: redeploy_backend(rig, {"HOST": "127.0.0.1"}, None),
        ("app-bind-address-mismatch",),
        hop="dest-pod",
    ),
    Fault(
        "packet-loss",
        lambda rig: rig.network.loss(0.3),
        ("inter-cluster-packet-loss",),
        ("broken", "degraded"),
        "network",
    ),
)


def test_a_healthy_pair_is_silence_and_exit_code_0(clean_rig: rigs.Rig) -> None:
    run = diagnose(clean_rig)
    assert (run.report["verdict"], run.code, run.causes) == ("healthy", 0, []), run.told
    findings = [finding for check in run.report["checks"] for finding in check["findings"]]
    assert not [finding for finding in findings if finding["severity"] != "note"], run.told


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_is_named_on_rank_1(clean_rig: rigs.Rig, fault: Fault) -> None:
    fault.inject(clean_rig)
    run = diagnose(clean_rig)
    assert run.causes and run.causes[0] in fault.causes, run.told
    assert (run.report["verdict"] in fault.verdicts, run.code) == (True, 1), run.told
    if fault.hop:
        assert run.report["causes"][0]["hop"] == fault.hop, run.told


def test_it_runs_as_a_plugin_of_kubectl(clean_rig: rigs.Rig) -> None:
    environment = {
        **os.environ,
        "KUBECONFIG": str(clean_rig.kubeconfig),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["kubectl", "mcdoctor", "diagnose", "frontend", "backend", "--context", "cluster-a", "--yes"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "HEALTHY" in result.stdout.upper()
