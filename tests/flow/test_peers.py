"""Which context is the other cluster: what the source's cluster says of it, and what agrees."""

from __future__ import annotations

from world import service, thing

from mcdoctor.flow import parse_target
from mcdoctor.flow.peers import addresses_match, mentions, names_in_source
from mcdoctor.models.collection import Facts

BACKEND = parse_target("backend")
COREFILE = ".:53 {\n kubernetes cluster.local\n}\ncluster-b.internal {\n forward . 192.168.20.10:30053\n}\n"


def coredns(cluster="a", text=COREFILE):
    return thing(cluster, "ConfigMap", "coredns", "kube-system", data={"Corefile": text})


def words(*objects, target=BACKEND):
    return names_in_source(Facts(objects), "a", target)


def test_where_a_cluster_is_spoken_of():
    alias = service("a", "backend", selector=False, spec={"type": "ExternalName", "externalName": "backend.Cluster-B.internal."})
    mirror = service("a", "backend-east", selector=False, labels={"mirror.linkerd.io/mirrored-service": "true", "mirror.linkerd.io/cluster-name": "east"})
    link = thing("a", "Link", "west", "linkerd-multicluster", version="multicluster.linkerd.io/v1alpha1", spec={"targetClusterName": "west"})
    cable = thing("a", "Endpoint", "x", "submariner-operator", version="submariner.io/v1", spec={"cluster_id": "north"})
    imported = thing("a", "ServiceImport", "backend", version="multicluster.x-k8s.io/v1alpha1", status={"clusters": [{"cluster": "south"}, None]})
    found = words(alias, mirror, link, cable, imported, coredns())
    assert {"backend.cluster-b.internal", "east", "west", "north", "south", "cluster-b.internal"} <= set(found)
    assert words(service("a", "other", spec={"type": "ExternalName", "externalName": "x.cluster-b"})) == {}
    assert "api.cluster-b.example" in words(target=parse_target("api.cluster-b.example:443"))


def test_a_name_counts_as_a_whole_word_only():
    found = words(coredns())
    assert mentions(found, ("cluster-b",)) == "CoreDNS forwards cluster-b.internal"
    assert mentions(found, ("cluster", "b", "cluster-bb", "luster-b")) is None


def test_an_address_that_the_source_forwards_to():
    def node(address):
        return thing("b", "Node", "n1", None, status={"addresses": [{"type": "InternalIP", "address": address}]})

    facts = Facts([coredns()])
    assert addresses_match(facts, "a", [node("192.168.20.10")]) == "CoreDNS forwards to 192.168.20.10, a node of it"
    assert addresses_match(facts, "a", [node("192.168.20.1"), node("92.168.20.10")]) is None
    assert addresses_match(Facts([]), "a", [node("192.168.20.10")]) is None
