"""What is read, and which refusals are no limit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mcdoctor.flow import FlowRequest, kinds, parse_target
from mcdoctor.flow.gather import gather
from mcdoctor.models.facts import Absent, Blind, Listed
from mcdoctor.models.vantage import Vantage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT = Vantage(cluster="a")


class Namespaced:
    """A cluster whose user may read one namespace only; `served` are the extension kinds that it has."""

    cluster = "a"

    def __init__(self, *served):
        self.served = served

    def _extension(self, kind):
        return any(r.optional and r.kind == kind and "." in kind and kind != "DaemonSet.apps" for r in kinds.READINGS)

    def get(self, kind, namespace, name):
        about = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        if namespace == "shop":
            return Absent(at=NOW, vantage=AT, cluster="a", wanted=kind, namespace=namespace, name=name)
        return Blind(at=NOW, vantage=AT, wanted=kind, about=about, cluster="a", status=403, reason=f"not allowed to get {kind}",
                     permission=f"get {kind} in {namespace}")  # fmt: skip

    def list(self, kind, namespace=None, *, labels=None, fields=None):
        if self._extension(kind) and kind not in self.served:
            return [Absent(at=NOW, vantage=AT, cluster="a", wanted=kind)]
        if namespace == "shop":
            return [Listed(at=NOW, vantage=AT, cluster="a", wanted=kind, namespace=namespace, count=0)]
        return [Blind(at=NOW, vantage=AT, wanted=kind, about=kind, cluster="a", status=403, reason=f"not allowed to list {kind}")]  # fmt: skip


def refused(*served):
    request = FlowRequest(
        source=parse_target("web"), destination=parse_target("api"), source_cluster="a", destination_cluster=None,
        namespace="shop",
    )  # fmt: skip
    return {f.about for f in gather({"a": Namespaced(*served)}, request) if isinstance(f, Blind)}


def test_refusals_about_extensions_that_are_not_there_are_no_limit():
    seen = refused()
    assert not {a for a in seen if "istio" in a or "cilium" in a or "calico" in a or "antrea" in a}
    assert "ConfigMap kube-system/coredns" in seen  # every cluster has it: what it says is missed


@pytest.mark.parametrize(
    ("served", "about"),
    [
        ("AuthorizationPolicy.security.istio.io", "ConfigMap istio-system/istio"),
        ("CiliumNetworkPolicy.cilium.io", "ConfigMap kube-system/cilium-config"),
        ("NetworkPolicy.projectcalico.org", "DaemonSet.apps kube-system/calico-node"),
    ],
)
def test_an_extension_known_to_be_there_is_missed(served, about):
    assert about in refused(served)
