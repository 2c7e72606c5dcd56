"""Pairs resolved from objects: both clusters, each way of naming, and what is odd about them."""

from __future__ import annotations

import pytest
from world import deployment, listed, namespace, pod, service, slice_of, thing

from mcdoctor.flow import Ambiguous, FlowError, FlowRequest, NotFound, parse_target, resolve
from mcdoctor.models.collection import Facts


def ask(facts, source="frontend", destination="backend", *, there="b", **kw):
    request = FlowRequest(
        source=parse_target(source), destination=parse_target(destination), source_cluster="a", destination_cluster=there, **kw
    )
    return resolve(request, Facts(facts))


FRONTEND = [deployment("a", "frontend"), pod("a", "frontend-1", "frontend", "10.1.0.5"), namespace("a", "app")]
BACKEND = [service("b", "backend"), pod("b", "backend-1", "backend", "10.2.0.7"), slice_of("b", "backend", ["10.2.0.7"])]


def names(flow):
    return [note.id for note in flow.notes]


def test_same_cluster():
    flow = ask(
        [*FRONTEND, service("a", "backend"), pod("a", "backend-1", "backend", "10.1.0.9"), slice_of("a", "backend", ["10.1.0.9"])],
        there=None,
    )
    assert (str(flow.source), flow.host, flow.port, flow.protocol) == (
        "deployment/frontend", "backend.app.svc.cluster.local", 80, "http",
    )  # fmt: skip
    assert [(r.label, r.address, r.port) for r in flow.rungs] == [
        ("name", None, 80), ("cluster-ip", "10.96.0.10", 80), ("endpoint", "10.1.0.9", 8080),
    ]  # fmt: skip
    assert flow.notes == ()
    assert [layer.system for layer in flow.interconnect] == ["plain"]


def test_missing_here_present_there_is_a_finding_only_where_the_list_is_complete():
    assert names(ask([*FRONTEND, *BACKEND])) == []
    flow = ask([*FRONTEND, *BACKEND, listed("a", "Service")])
    assert names(flow) == ["destination-missing-here"]
    assert flow.host == "backend.app.svc.cluster.local"
    flow = ask([*FRONTEND[:2], *BACKEND, listed("a", "Service"), listed("a", "Namespace", None)])
    assert names(flow) == ["destination-namespace-missing-here", "destination-missing-here"]


def test_mcs_import_gives_the_clusterset_name():
    imported = thing(
        "a", "ServiceImport", "backend", version="multicluster.x-k8s.io/v1alpha1",
        spec={"type": "ClusterSetIP", "ips": ["10.97.0.3"], "ports": [{"name": "http", "port": 80}]},
    )  # fmt: skip
    exported = thing("b", "ServiceExport", "backend", version="multicluster.x-k8s.io/v1alpha1")
    flow = ask([*FRONTEND, *BACKEND, imported, exported, listed("a", "Service")])
    assert flow.host == "backend.app.svc.clusterset.local"
    assert ("cluster-ip", "10.97.0.3") in [(r.label, r.address) for r in flow.rungs]
    assert [layer.system for layer in flow.interconnect] == ["mcs"]
    flow = ask([*FRONTEND, *BACKEND, exported, listed("a", "Service"), listed("a", "ServiceImport.multicluster.x-k8s.io")])
    assert "destination-not-imported" in names(flow)


def test_linkerd_mirror_stands_for_the_service():
    mirror = service(
        "a", "backend-b", selector=False,
        labels={"mirror.linkerd.io/mirrored-service": "true", "mirror.linkerd.io/cluster-name": "b"},
    )  # fmt: skip
    flow = ask([*FRONTEND, *BACKEND, mirror, slice_of("a", "backend-b", ["172.18.0.9"], port=4143), listed("a", "Service")])
    assert flow.host == "backend-b.app.svc.cluster.local"
    assert [(layer.system, layer.mode) for layer in flow.interconnect] == [("linkerd-mirror", "gateway")]
    assert [r.address for r in flow.rungs if r.label == "endpoint"] == ["172.18.0.9"]


def test_layers_stack():
    submariner = thing("a", "Endpoint", "b-cable", "submariner-operator", version="submariner.io/v1", spec={"backend": "wireguard"})
    alias = service("a", "backend", selector=False, ip=None, spec={"type": "ExternalName", "externalName": "api.b.internal"})
    corefile = ".:53 {\n kubernetes cluster.local {\n }\n}\nb.internal:53 {\n forward . 192.168.0.2\n}\n"
    coredns = thing("a", "ConfigMap", "coredns", "kube-system", data={"Corefile": corefile})
    flow = ask([*FRONTEND, *BACKEND, submariner, alias, coredns])
    assert [(layer.layer, layer.system) for layer in flow.interconnect] == [("naming", "externalname"), ("l3", "submariner")]
    assert flow.local is not None and flow.local.external_name == "api.b.internal"


def test_host_of_a_serviceentry_and_of_a_stub_zone():
    entry = thing(
        "a", "ServiceEntry", "backend", version="networking.istio.io/v1",
        spec={"hosts": ["backend.app.global"], "resolution": "DNS", "ports": [{"number": 80, "name": "http"}]},
    )  # fmt: skip
    flow = ask([*FRONTEND, entry], destination="backend.app.global:80", there=None)
    assert [(layer.system, layer.mode) for layer in flow.interconnect] == [("istio-serviceentry", "dns")]


def test_global_on_one_side_only():
    both = [service("a", "backend", annotations={"service.cilium.io/global": "true"}), *BACKEND]
    assert names(ask([*FRONTEND, *both])) == ["destination-not-global"]


def test_a_sidecar_is_seen():
    meshed = pod("a", "frontend-1", "frontend", "10.1.0.5", containers=[{"name": "app"}, {"name": "istio-proxy"}])
    flow = ask([deployment("a", "frontend"), meshed, *BACKEND])
    assert flow.source_pod is not None and flow.source_pod.proxy == "istio"
    assert ("l7", "istio") in [(layer.layer, layer.system) for layer in flow.interconnect]


def test_readiness_path_and_scheme():
    probe = {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTPS"}}
    containers = [{"name": "app", "ports": [{"containerPort": 8080, "name": "web"}], "readinessProbe": probe}]
    far = [service("b", "backend", ports=[{"port": 9000, "targetPort": 8080}]), pod("b", "b-1", "backend", "10.2.0.7", containers=containers)]
    flow = ask([*FRONTEND, *far])
    assert (flow.protocol, flow.path, flow.port) == ("https", "/ready", 9000)


def test_errors_say_what_to_type():
    with pytest.raises(NotFound) as missing:
        ask([*FRONTEND, *BACKEND], destination="bakend")
    assert missing.value.nearest == ("backend",)
    with pytest.raises(NotFound):
        ask([*BACKEND])
    with pytest.raises(FlowError, match="port 81 is not on Service app/backend in b; it has 80"):
        ask([*FRONTEND, *BACKEND], destination="backend:81")
    with pytest.raises(Ambiguous) as several:
        ask([*FRONTEND, deployment("a", "frontend", "other"), *BACKEND])
    assert several.value.candidates == ("frontend.app", "frontend.other")
    with pytest.raises(FlowError, match="the source is a workload"):
        ask([*FRONTEND, *BACKEND], source="10.0.0.1")


def test_odd_objects_never_raise():
    odd = [
        thing("a", "Service", "backend", spec={"ports": "x", "selector": 3, "clusterIPs": {"a": 1}}),
        thing("a", "EndpointSlice", "backend-x", version="discovery.k8s.io/v1", labels={"kubernetes.io/service-name": "backend"},
              endpoints=[None, {"addresses": None}, {"addresses": ["x"], "conditions": []}], ports=[{"port": "8080"}, 3]),
        pod("a", "odd", "frontend", "10.1.0.5", containers=[None, {"ports": None}]),
        deployment("a", "frontend"),
    ]  # fmt: skip
    assert ask(odd, there=None).name == "backend"


def test_the_port_of_a_pod_may_stand_in_its_own_option():
    facts = [pod("a", "frontend", "frontend", "10.1.0.1"), pod("a", "db-0", "db", "10.1.0.9")]
    flow = ask(facts, destination="pod/db-0", there="a", port="5432")
    assert (flow.address, flow.port) == ("10.1.0.9", 5432)
    with pytest.raises(FlowError, match="as a number"):
        ask(facts, destination="pod/db-0:sql", there="a")
