"""lab.yaml: what is refused, with which words; and the scenarios that ship against their own bundles."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcdoctor.lab import BadLab, Scenario, folder, names, scenario
from mcdoctor.lab.scenarios import BadScenario
from mcdoctor.lab.schema import LabSpec, load, parse

from .conftest import spec_of, text_of

WRONG = [
    ("about: a test", "about: [a]", "lab.yaml:3: about: expected text, found a list"),
    ("about: a test", "abuot: a test", "lab.yaml:3: abuot: no such key; known here: apiVersion, kind, about,"),
    ("about: a test\n", "", "lab.yaml:1: about is missing"),
    ("mcdoctor.dev/v1", "mcdoctor.dev/v9", "lab.yaml:1: apiVersion: expected mcdoctor.dev/v1, found 'mcdoctor.dev/v9'"),
    ("kind: Lab", "kind: Bundle", "lab.yaml:2: kind: expected one of Lab, found 'Bundle'"),
    ("kind: Lab", "kind: {", "lab.yaml:"),
    ("port: 8080,", "port: eighty,", "hosts.server.http[0].port: expected a whole number, found 'eighty'"),
    ("port: 8080,", "port: true,", "hosts.server.http[0].port: expected a whole number, found True"),
    ("port: 8080,", "port: 80800,", "hosts.server.http[0].port: expected 1 to 65535, found 80800"),
    (
        "address: 10.10.0.1",
        "address: 10.10.0.300",
        "hosts.client.address: expected an IPv4 address, found '10.10.0.300'",
    ),
    ("address: 10.10.0.1", "address: 10.20.0.1", "hosts.server.address: 10.20.0.1 already belongs to client"),
    ("router: left", "router: up", "hosts.client.router: no router is called 'up'"),
    ("[left, middle]", "[left, up]", "links[0].between: no router is called 'up'"),
    ("[left, middle]", "[left]", "links[0].between: expected two different routers"),
    ("  - {between: [left, middle]}\n", "", "links: no line joins"),
    ("[middle, right]", "[middle, right], loss: 30", "links[1].loss: expected a share from 0 to 1, found 30"),
    ("[middle, right]", "[middle, right], mtu: 12", "links[1].mtu: expected 68 to 9000 bytes, found 12"),
    ('["10.20.0.1:8080"]', '["10.20.0.1"]', "services[0].ports[0].to[0]: expected address:port, found '10.20.0.1'"),
    ("pod: shop/client", "pod: client", "hosts.client.pod: expected namespace/name"),
    ("empty: drop", "empty: vanish", "services[0].ports[3].empty: expected one of reject, drop, found 'vanish'"),
    ('"A 10.20.0.1"', '"10.20.0.1"', "hosts.server.dns[0].records.server.test[0]: expected `TYPE data`"),
    ("hosts:", "hosts: 3\nother:", "other: no such key"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[m.partition(": ")[2][:50] or m for _, _, m in WRONG])
def test_what_is_refused(old: str, new: str, message: str) -> None:
    text = text_of()
    assert old in text
    with pytest.raises(BadLab) as refused:
        parse(text.replace(old, new, 1))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_line_is_that_of_the_key() -> None:
    text = text_of().replace("port: 8080,", "port: eighty,")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "eighty" in row)
    with pytest.raises(BadLab, match=f"^lab.yaml:{line}: "):
        parse(text)


@pytest.mark.parametrize("text", ["", "[]", "3", "a: b: c", "\x00", "{a: &x [*x]}", "- 1\n- 2"])
def test_what_is_no_lab_at_all(text: str) -> None:
    with pytest.raises(BadLab):
        parse(text)


def test_filters_and_policies_name_hosts_or_networks() -> None:
    with pytest.raises(BadLab, match="is neither a host of this lab nor a CIDR"):
        spec_of(more="filters:\n  - {at: middle, action: drop, sources: [nobody]}\n")
    with pytest.raises(BadLab, match="reset needs protocol tcp"):
        spec_of(more="filters:\n  - {at: middle, action: reset}\n")


# --- scenarios ------------------------------------------------------------------------------------------------------


def test_default_and_healthy_come_first() -> None:
    assert names()[:2] == ("default", "healthy")
    assert len(names()) >= 8


def test_an_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(LookupError, match="nearest: packet-loss"):
        folder("packet-los")


def test_a_folder_elsewhere_is_a_scenario_too(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(text_of(), encoding="utf-8")
    (tmp_path / "expect.yaml").write_text("verdict: healthy\nsilent: true\n", encoding="utf-8")
    assert scenario(str(tmp_path)).expect.silent
    (tmp_path / "expect.yaml").write_text("causes: []\n", encoding="utf-8")
    with pytest.raises(BadScenario, match="expected verdict"):
        scenario(str(tmp_path))


@pytest.fixture(params=names())
def each(request: pytest.FixtureRequest) -> Scenario:
    return scenario(request.param)


@functools.cache
def objects(place: Path) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.parents[1].name, document)
        for path in sorted(place.glob("clusters/*/objects/*.yaml"))
        for document in yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    ]


def named(body: dict[str, Any]) -> str:
    return f"{body['metadata'].get('namespace', '')}/{body['metadata']['name']}"


def test_expectations_are_of_known_words(each: Scenario) -> None:
    from mcdoctor.models.ids import Symptom, Verdict, slug

    assert each.expect.verdict in {v.value for v in Verdict}
    assert each.expect.symptom is None or each.expect.symptom in {s.value for s in Symptom}
    assert [slug(c) for c in each.expect.causes] == list(each.expect.causes)
    assert each.expect.silent == (each.expect.verdict == "healthy")
    assert bool(each.expect.causes) != each.expect.silent


def test_the_bundle_reads_without_a_problem(each: Scenario) -> None:
    from mcdoctor.runner.bundle import read_bundle

    bundle = read_bundle(each.folder)
    assert [str(p) for p in bundle.problems] == []
    assert (bundle.request["source"], bundle.request["destination"]) == (each.source, each.destination)


def test_the_pods_of_the_objects_are_the_hosts(each: Scenario) -> None:
    lab = load(each.folder / "lab.yaml")
    pods = {(c, named(o)): o for c, o in objects(each.folder) if o["kind"] == "Pod"}
    hosts = {(h.cluster or "", h.pod): h for h in lab.hosts.values() if h.pod}
    assert set(pods) == set(hosts)
    for place, pod in pods.items():
        host = hosts[place]
        assert pod["status"]["podIP"] == host.address
        assert pod["spec"]["nodeName"] == host.router
        assert pod["status"]["hostIP"] == lab.routers[host.router].address


def test_the_services_of_the_objects_are_the_addresses(each: Scenario) -> None:
    lab = load(each.folder / "lab.yaml")
    found = objects(each.folder)
    slices: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cluster, body in found:
        service = body["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        if body["kind"] == "EndpointSlice" and service:
            slices.setdefault((cluster, f"{body['metadata']['namespace']}/{service}"), []).append(body)
    addresses: dict[tuple[str, str], dict[tuple[int, str], set[str]]] = {}
    for cluster, body in found:
        if body["kind"] != "Service" or not body["spec"].get("selector"):
            continue
        ingress = [i["ip"] for i in body["status"]["loadBalancer"].get("ingress", ())]
        for address in [body["spec"]["clusterIP"], *ingress]:
            ports = addresses.setdefault((cluster, address), {})
            for port in body["spec"]["ports"]:
                to = {
                    f"{endpoint['addresses'][0]}:{target['port']}"
                    for part in slices.get((cluster, named(body)), ())
                    for target in part["ports"]
                    if target["name"] == port["name"]
                    for endpoint in part["endpoints"]
                    if endpoint["conditions"]["ready"]
                }
                ports[port["port"], port["protocol"].lower()] = to
    simulated = {(s.cluster, s.address): {(p.port, p.protocol): set(p.to) for p in s.ports} for s in lab.services}
    assert simulated == addresses


def test_endpoints_are_ready_pods_that_the_selector_matches(each: Scenario) -> None:
    found = objects(each.folder)
    for cluster, body in found:
        if body["kind"] != "Service" or not body["spec"].get("selector"):
            continue
        wanted = body["spec"]["selector"].items()
        matching = {
            o["status"]["podIP"]
            for c, o in found
            if c == cluster
            and o["kind"] == "Pod"
            and o["metadata"]["namespace"] == body["metadata"]["namespace"]
            and wanted <= o["metadata"]["labels"].items()
        }
        told = {
            endpoint["addresses"][0]
            for c, o in found
            if c == cluster
            and o["kind"] == "EndpointSlice"
            and o["metadata"]["namespace"] == body["metadata"]["namespace"]
            and o["metadata"].get("labels", {}).get("kubernetes.io/service-name") == body["metadata"]["name"]
            for endpoint in o["endpoints"]
        }
        assert told == matching


def test_the_resolv_conf_of_a_pod_is_what_kubelet_would_write(each: Scenario) -> None:
    lab = load(each.folder / "lab.yaml")
    found = objects(each.folder)
    dns = {c: o["spec"]["clusterIP"] for c, o in found if o["kind"] == "Service" and named(o) == "kube-system/kube-dns"}
    pods = {(c, named(o)): o for c, o in found if o["kind"] == "Pod"}
    for host in lab.hosts.values():
        if host.pod is None or host.resolv_conf is None:
            continue
        assert host.cluster is not None
        pod = pods[host.cluster, host.pod]
        own = pod["spec"].get("dnsConfig", {})
        namespace = pod["metadata"]["namespace"]
        searches = [f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        if pod["spec"]["dnsPolicy"] == "None":
            assert list(host.resolv_conf.nameservers) == own["nameservers"]
            assert list(host.resolv_conf.search) == own["searches"]
        else:
            assert list(host.resolv_conf.nameservers) == [dns[host.cluster]]
            assert list(host.resolv_conf.search) == searches


def test_enforced_policies_are_in_the_bundle(each: Scenario) -> None:
    lab = load(each.folder / "lab.yaml")
    there = {(c, f"{o['kind']} {named(o)}") for c, o in objects(each.folder)}
    for enforced in lab.enforce.policies:
        assert (enforced.cluster, enforced.policy) in there
    assert bool(lab.enforce.policies) == any(kind.startswith("NetworkPolicy") for _, kind in there)


def test_what_coredns_forwards_is_in_the_corefile(each: Scenario) -> None:
    lab = load(each.folder / "lab.yaml")
    for cluster, body in objects(each.folder):
        if body["kind"] != "ConfigMap" or named(body) != "kube-system/coredns":
            continue
        servers = [d for h in lab.hosts.values() if h.cluster == cluster for d in h.dns if "cluster.local" in d.zones]
        forwarded = {zone: [a.partition(":")[0] for a in to] for dns in servers for zone, to in dns.forward.items()}
        stubs: dict[str, list[str]] = {}
        zone = ""
        for line in body["data"]["Corefile"].splitlines():
            if line and not line.startswith((" ", "}")):
                zone = line.partition(":")[0]
            words = line.split()
            if words[:2] == ["forward", "."] and zone != ".":
                stubs[zone] = words[2:]
        assert forwarded == stubs


def test_coredns_knows_every_service_of_its_cluster(each: Scenario) -> None:
    lab = load(each.folder / "lab.yaml")
    known: dict[str | None, dict[str, tuple[str, ...]]] = {}
    for host in lab.hosts.values():
        for server in host.dns:
            if "cluster.local" in server.zones:
                known[host.cluster] = dict(server.records)
    services: dict[str | None, dict[str, tuple[str, ...]]] = {}
    for cluster, body in objects(each.folder):
        if body["kind"] == "Service":
            namespace, name = named(body).split("/")
            spec = body["spec"]
            record = f"A {spec['clusterIP']}" if "clusterIP" in spec else f"CNAME {spec['externalName']}."
            services.setdefault(cluster, {})[f"{name}.{namespace}.svc.cluster.local"] = (record,)
    assert known == services


def test_secrets_are_in_no_scenario(each: Scenario) -> None:
    assert not [named(o) for _, o in objects(each.folder) if o["kind"] == "Secret"]


def test_the_page_is_current() -> None:
    from mcdoctor.lab.page import page

    written = Path(__file__).parents[2] / "docs" / "lab.md"
    assert written.read_text(encoding="utf-8") == page(), "run: python -m mcdoctor.lab.page > docs/lab.md"


def test_every_key_is_explained() -> None:
    import dataclasses

    from mcdoctor.lab.page import _reachable

    for cls in _reachable(LabSpec):
        for each_field in dataclasses.fields(cls):  # type: ignore[arg-type]
            assert each_field.metadata.get("doc"), f"{cls.__name__}.{each_field.name}"
