"""What is read, and which refusals are no limit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mcdoctor.flow import FlowRequest, kinds, parse_target
from mcdoctor.flow.gather import gather
from mcdoctor.models.facts import Absent, Blind, KubeObject, Listed
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


class Holding(Namespaced):
    """A cluster that may be read whole and holds these objects; `asked` are the reads of it."""

    def __init__(self, *bodies, forbidden=()):
        super().__init__()
        self.bodies, self.forbidden, self.asked = bodies, forbidden, set()

    def _of(self, kind, namespace):
        word, _, group = kind.partition(".")
        for body in self.bodies:
            home = body["metadata"].get("namespace")
            if (body["kind"], body["apiVersion"].rpartition("/")[0]) == (word, group) and namespace in (None, home):
                yield KubeObject(at=NOW, vantage=AT, cluster="a", body=body)

    def get(self, kind, namespace, name):
        self.asked.add((kind, namespace, name))
        if kind in self.forbidden:
            about = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
            return Blind(at=NOW, vantage=AT, wanted=kind, about=about, cluster="a", status=403, reason="no")
        found = [o for o in self._of(kind, namespace) if o.name == name]
        return (
            found[0] if found else Absent(at=NOW, vantage=AT, cluster="a", wanted=kind, namespace=namespace, name=name)
        )

    def list(self, kind, namespace=None, *, labels=None, fields=None):
        self.asked.add((kind, namespace, None))
        if kind in self.forbidden:
            return [Blind(at=NOW, vantage=AT, wanted=kind, about=kind, cluster="a", status=403, reason="no")]
        found = list(self._of(kind, namespace))
        return [*found, Listed(at=NOW, vantage=AT, cluster="a", wanted=kind, namespace=namespace, count=len(found))]


def body(kind, name, version="v1", namespace="shop", labels=None, **rest):
    meta = {"name": name, "labels": labels or {}} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": meta, **rest}


def gathered(*bodies, forbidden=()):
    cluster = Holding(*bodies, forbidden=forbidden)
    request = FlowRequest(
        source=parse_target("web"), destination=parse_target("api"), source_cluster="a", destination_cluster=None,
        namespace="shop",
    )  # fmt: skip
    return cluster, gather({"a": cluster}, request)


MESHED = body(
    "Pod", "web-1", spec={"containers": [{"name": "app"}, {"name": "istio-proxy"}], "serviceAccountName": "web"}
)
PLAIN = body("Pod", "web-1", spec={"containers": [{"name": "app"}], "serviceAccountName": "web"})
NATIVE = body("Pod", "web-1", spec={"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]})
ENROLLED = body("Namespace", "shop", namespace=None, labels={"istio.io/dataplane-mode": "ambient"})
AUTHORIZATION = "AuthorizationPolicy.security.istio.io"


@pytest.mark.parametrize(
    ("bodies", "root"),
    [
        ([PLAIN], None),
        ([MESHED], "istio-system"),
        ([NATIVE], "istio-system"),
        ([PLAIN, ENROLLED], "istio-system"),
        ([MESHED, body("ConfigMap", "istio", namespace="istio-system", data={"mesh": "a: b\nrootNamespace: 'mesh-root'\n"})], "mesh-root"),
        ([MESHED, body("ConfigMap", "istio", namespace="istio-system", data={"mesh": "trustDomain: x"})], "istio-system"),
        ([MESHED, body("ConfigMap", "istio", namespace="istio-system", data={"mesh": "rootNamespace: shop"})], "shop"),
    ],
)  # fmt: skip
def test_the_root_namespace_of_istio_is_read_when_its_proxies_stand_in_the_path(bodies, root):
    cluster, _ = gathered(*bodies)
    assert {place for kind, place, _ in cluster.asked if kind == AUTHORIZATION} == {"shop", root} - {None}


def test_mesh_wide_policies_come_with_the_rest():
    mesh_wide = body("PeerAuthentication", "default", "security.istio.io/v1", "istio-system", spec={})
    _, facts = gathered(MESHED, mesh_wide)
    assert [f.namespace for f in facts if isinstance(f, KubeObject) and f.name == "default"] == ["istio-system"]


def calico(**spec):
    return body("GlobalNetworkPolicy", "p", "projectcalico.org/v3", None, spec=spec)


def test_service_accounts_are_read_by_name_where_a_policy_goes_by_them():
    assert not [a for a in gathered(PLAIN, calico(selector="all()"))[0].asked if a[0] == "ServiceAccount"]
    cluster, _ = gathered(PLAIN, NATIVE, calico(ingress=[{"source": {"serviceAccounts": {"selector": "all()"}}}]))
    asked = {a for a in cluster.asked if a[0] == "ServiceAccount"}
    assert asked == {("ServiceAccount", "shop", "web"), ("ServiceAccount", "shop", "default")}


def test_host_endpoints_are_read_where_they_can_matter():
    def asked(*bodies):
        return "HostEndpoint.projectcalico.org" in {kind for kind, _, _ in gathered(*bodies)[0].asked}

    on_host = body("Pod", "web-1", spec={"containers": [], "hostNetwork": True})
    assert not asked(PLAIN, calico(selector="all()"))
    assert not asked(on_host)
    assert asked(on_host, calico(selector="all()"))
    assert asked(PLAIN, calico(applyOnForward=True))


def test_what_only_sharpens_the_answer_is_never_missed():
    kinds_of_felix = ("FelixConfiguration.projectcalico.org", "FelixConfiguration.crd.projectcalico.org")
    cluster, facts = gathered(PLAIN, calico(selector="all()"), forbidden=kinds_of_felix)
    assert {(kind, None, "default") for kind in kinds_of_felix} <= cluster.asked
    assert not [f for f in facts if isinstance(f, Blind)]
