"""Room netpol: what fires, what stays silent, what stays blind; each mistake against its look-alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mcdoctor.flow import FlowRequest, parse_target, resolve
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Blind, DnsAnswer, Fact, HttpRequest, KubeObject, Listed, TcpConnect
from mcdoctor.models.outcome import Failed, Passed, Unknown, findings
from mcdoctor.models.vantage import Vantage
from mcdoctor.reports.view import sentence
from mcdoctor.runner.run import conclude
from mcdoctor_checks.netpol import CHECKS
from mcdoctor_checks.netpol.judge import judge
from mcdoctor_playbooks import load

AT = datetime(2026, 1, 1, tzinfo=UTC)
POD = Vantage(cluster="a", namespace="app", pod="frontend-1")
ERRORS = ("netpol-denies-egress", "netpol-denies-ingress", "netpol-denies-dns", "netpol-denies-some")


def thing(cluster: str, kind: str, name: str, namespace: str | None = "app", version: str = "v1", **body: Any) -> KubeObject:
    metadata: dict[str, Any] = {"name": name, "labels": body.pop("labels", {})}
    if namespace:
        metadata["namespace"] = namespace
    whole = {"apiVersion": version, "kind": kind, "metadata": metadata, **body}
    return KubeObject(at=AT, vantage=Vantage(cluster=cluster, host="api"), cluster=cluster, body=whole)


def pod(cluster: str, name: str, app: str, ip: str, namespace: str = "app", port: int = 8080, **labels: str) -> KubeObject:
    spec = {"nodeName": f"{cluster}-n1", "containers": [{"name": "c", "image": "x", "ports": [{"name": "web", "containerPort": port}]}]}
    status = {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}
    return thing(cluster, "Pod", name, namespace, labels={"app": app, **labels}, spec=spec, status=status)


def policy(cluster: str, name: str, spec: dict[str, Any], namespace: str = "app") -> KubeObject:
    return thing(cluster, "NetworkPolicy", name, namespace, "networking.k8s.io/v1", spec=spec)


def world(there: str = "b") -> list[KubeObject]:
    """frontend in a, backend in `there`, Service port 80 to pod port 8080; DNS in a's kube-system."""
    return [
        thing("a", "Namespace", "app", None, labels={"kubernetes.io/metadata.name": "app"}),
        thing("a", "Namespace", "kube-system", None, labels={"kubernetes.io/metadata.name": "kube-system"}),
        thing(there, "Namespace", "app", None, labels={"kubernetes.io/metadata.name": "app"}),
        thing("a", "Deployment", "frontend", version="apps/v1", spec={"selector": {"matchLabels": {"app": "frontend"}}}),
        pod("a", "frontend-1", "frontend", "10.1.0.5"),
        pod(there, "backend-1", "backend", "10.2.0.7"),
        thing(there, "Service", "backend", spec={"selector": {"app": "backend"}, "clusterIP": "10.96.2.1", "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}),
        thing(there, "EndpointSlice", "backend-x", version="discovery.k8s.io/v1", labels={"kubernetes.io/service-name": "backend"},
              ports=[{"port": 8080, "protocol": "TCP"}],
              endpoints=[{"addresses": ["10.2.0.7"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "backend-1", "namespace": "app"}}]),
        thing("a", "Service", "kube-dns", "kube-system", spec={"selector": {"k8s-app": "kube-dns"}, "clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}),
        thing("a", "Pod", "coredns-1", "kube-system", labels={"k8s-app": "kube-dns"}, spec={"nodeName": "a-n1", "containers": [{"name": "c", "image": "x"}]},
              status={"phase": "Running", "podIP": "10.1.0.53", "conditions": [{"type": "Ready", "status": "True"}]}),
    ]  # fmt: skip


def request(result: str, status: int | None = None) -> HttpRequest:
    return HttpRequest(at=AT, vantage=POD, url="http://backend.app.svc.cluster.local/", protocol="http/1.1", result=result, status=status, ms=3000)  # type: ignore[arg-type]


def dns(result: str) -> DnsAnswer:
    rcode = "NOERROR" if result == "answered" else None
    return DnsAnswer(at=AT, vantage=POD, name="backend.app.svc.cluster.local.", type="A", server="10.96.0.10:53", transport="udp", result=result, rcode=rcode, ms=2000)  # type: ignore[arg-type]


def ask(*extra: Fact, there: str = "b", complete: tuple[str, ...] = ("*",)) -> Facts:
    everything = [*world(there), *extra]
    asked = FlowRequest(source=parse_target("frontend"), destination=parse_target("backend"), source_cluster="a", destination_cluster=there)
    flow = resolve(asked, Facts(everything, None, complete))
    return Facts(everything, flow, complete)


def ids(facts: Facts) -> list[str]:
    return [f.id for f in findings(judge(facts)) if f.id != "netpol-allows-dns"]


def causes(facts: Facts) -> list[tuple[str, str]]:
    made = conclude(CHECKS, list(facts), facts.flow, load(), complete=("*",))
    return [(d.cause.id, d.certainty.value) for d in made.diagnoses]


DENY_IN = policy("b", "deny", {"podSelector": {}, "policyTypes": ["Ingress"]})
ADMIT = policy("b", "admit", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 8080}]}]})
DNS_OUT = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}], "ports": [{"port": 53, "protocol": "UDP"}]}
DATA_OUT = {"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]}


def egress(*rules: dict[str, Any]) -> KubeObject:
    return policy("a", "out", {"podSelector": {"matchLabels": {"app": "frontend"}}, "policyTypes": ["Egress"], "egress": list(rules)})


def test_silent_without_policies_and_with_fitting_ones():
    assert isinstance(judge(ask()), Passed)
    assert ids(ask(DENY_IN, ADMIT, egress(DNS_OUT, DATA_OUT))) == []


def test_ingress_that_does_not_admit_is_proved_only_with_a_failure():
    assert ids(ask(DENY_IN)) == ["netpol-denies-ingress"]
    assert causes(ask(DENY_IN)) == [("netpol-ingress-not-allowed", "supported")]
    assert causes(ask(DENY_IN, request("timeout"))) == [("netpol-ingress-not-allowed", "proved")]


def test_traffic_that_passes_all_the_same_accuses_nobody():
    facts = ask(DENY_IN, request("response", 200))
    assert ids(facts) == ["netpol-denied-but-passes"]
    assert causes(facts) == []
    assert ids(ask(egress(DATA_OUT), dns("answered"))) == ["netpol-denied-but-passes"]


def test_a_gateways_503_is_no_proof_of_passing():
    assert "netpol-denies-ingress" in ids(ask(DENY_IN, request("response", 503)))


def test_egress_without_dns_against_egress_without_the_destination():
    assert causes(ask(egress(DATA_OUT), dns("timeout")))[0] == ("netpol-egress-dns-blocked", "proved")
    assert causes(ask(egress(DNS_OUT), request("timeout")))[0] == ("netpol-egress-not-allowed", "proved")


def test_both_sides_are_named():
    assert ids(ask(egress(DNS_OUT), DENY_IN)) == ["netpol-denies-egress", "netpol-denies-ingress"]


def test_the_service_port_in_place_of_the_pods():
    wrong = policy("b", "p", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 80}]}]})
    assert causes(ask(wrong, request("timeout")))[0] == ("netpol-service-port-vs-pod-port", "proved")
    other = policy("b", "p", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 81}]}]})
    assert causes(ask(other, request("timeout")))[0] == ("netpol-ingress-not-allowed", "proved")


def test_the_rule_that_was_meant_is_named_with_the_one_thing_it_lacks():
    other = policy("b", "p", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 81}]}]})
    facts = ask(other, request("timeout"))
    found = next(f for f in findings(judge(facts)) if f.id == "netpol-rule-nearly-matches-ingress")
    assert found.args["pointer"] == "/spec/ingress/0/from/0" and found.args["lacks"] == "the rule covers TCP 81, the traffic is TCP 8080"
    assert [o.name for o in found.evidence if isinstance(o, KubeObject)] == ["p"]
    told = sentence(found, facts.flow, load(), "ko")
    assert told == "b의 NetworkPolicy app/p /spec/ingress/0/from/0 규칙은 들어오는 트래픽에 거의 맞습니다: 규칙의 범위는 TCP 81, 트래픽은 TCP 8080입니다"
    made = conclude(CHECKS, list(facts), facts.flow, load(), complete=("*",))
    assert found.id in [f.id for f in made.diagnoses[0].supporting]
    assert "netpol-rule-nearly-matches-ingress" not in ids(ask(DENY_IN)), "a policy without rules means none of them"


def test_a_selector_that_fits_nothing_against_one_that_meets_a_remote_pod():
    nothing = policy("a", "p", {"podSelector": {"matchLabels": {"app": "backend"}}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]}]})
    assert causes(ask(nothing, request("timeout"), there="a"))[0] == ("netpol-selector-matches-nothing", "proved")
    remote = policy("b", "p", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "frontend"}}}]}]})
    facts = ask(remote, request("timeout"))
    assert "netpol-selector-meets-remote-pod" in ids(facts)
    assert causes(facts)[0] == ("netpol-ingress-not-allowed", "proved")


def test_nothing_is_said_to_fit_nothing_where_not_all_is_known():
    nothing = policy("a", "p", {"podSelector": {"matchLabels": {"app": "backend"}}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]}]})
    assert "netpol-peer-selects-nothing" not in ids(ask(nothing, there="a", complete=()))


def test_a_port_name_that_no_container_has():
    named = policy("b", "p", {"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]})
    assert causes(ask(named, request("timeout")))[0] == ("netpol-named-port-unresolved", "proved")
    assert ids(ask(policy("b", "p", {"podSelector": {}, "ingress": [{"ports": [{"port": "web"}]}]}))) == []


def test_policy_types_that_do_not_fit_the_rules():
    swapped = policy("b", "p", {"podSelector": {}, "policyTypes": ["Ingress"], "egress": [DATA_OUT]})
    assert causes(ask(swapped, request("timeout")))[0] == ("netpol-policytypes-egress-missing", "proved")
    bare = policy("a", "p", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}]})
    assert causes(ask(bare, request("timeout"), dns("timeout")))[0][0] in ("netpol-policytypes-egress-missing", "netpol-egress-dns-blocked")


def test_egress_rules_that_do_nothing_are_a_warning():
    idle = policy("a", "p", {"podSelector": {"matchLabels": {"app": "frontend"}}, "policyTypes": ["Ingress"], "ingress": [{}], "egress": [DATA_OUT]})
    outcome = judge(ask(idle, request("response", 200)))
    assert isinstance(outcome, Failed)
    assert [(f.id, f.severity.value) for f in outcome.findings if f.id != "netpol-allows-dns"] == [("netpol-egress-rules-ignored", "warning")]


def test_some_endpoints_refused_is_partial():
    guarded = pod("b", "backend-2", "backend", "10.2.0.8", tier="guarded")
    more = thing("b", "EndpointSlice", "backend-y", version="discovery.k8s.io/v1", labels={"kubernetes.io/service-name": "backend"}, ports=[{"port": 8080, "protocol": "TCP"}],
                 endpoints=[{"addresses": ["10.2.0.8"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "backend-2", "namespace": "app"}}])  # fmt: skip
    only = policy("b", "p", {"podSelector": {"matchLabels": {"tier": "guarded"}}, "policyTypes": ["Ingress"]})
    found = [f for f in findings(judge(ask(guarded, more, only))) if f.id == "netpol-denies-some"]
    assert [(f.args["failed"], f.args["tries"]) for f in found] == [(1, 2)]


def test_blind_is_not_allowed():
    blind = Blind(at=AT, vantage=Vantage(cluster="b"), wanted="NetworkPolicy.networking.k8s.io", about="NetworkPolicy.networking.k8s.io in app", reason="not allowed", cluster="b", command="kubectl auth can-i")
    assert isinstance(judge(ask(blind)), Unknown)
    assert isinstance(judge(ask(complete=("Namespace",))), Unknown)
    seen = [Listed(at=AT, vantage=Vantage(cluster=c), cluster=c, wanted="NetworkPolicy.networking.k8s.io", namespace="app", count=0) for c in ("a", "b")]
    assert isinstance(judge(ask(*seen, complete=())), Passed)


def test_what_a_sidecar_answers_shows_nothing():
    """A connect from a captured pod is answered by its own proxy; it is no sign that the traffic passes."""
    meshed = pod("a", "frontend-1", "frontend", "10.1.0.5")
    body = {**meshed.body, "spec": {**meshed.body["spec"], "containers": [{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "x"}]}}
    captured = KubeObject(at=AT, vantage=meshed.vantage, cluster="a", body=body)
    opened = TcpConnect(at=AT, vantage=POD, address="10.2.0.7", port=8080, result="open", ms=1)
    assert "netpol-denied-but-passes" in ids(ask(DENY_IN, opened))
    assert "netpol-denies-ingress" in ids(ask(DENY_IN, captured, opened))


@pytest.mark.parametrize("odd", [{"podSelector": 3}, {"ingress": "x"}, {"podSelector": {}, "ingress": [None]}, {}, None])
def test_odd_policies_never_raise(odd):
    judge(ask(policy("b", "p", odd), request("timeout")))
