"""Bundles: what is read, what is refused, what a broken part costs."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from mcdoctor.models.facts import Blind, DnsAnswer, KubeObject
from mcdoctor.runner.bundle import BundleError, ClusterEntry, read_bundle, write_bundle

HEAD = """
apiVersion: mcdoctor.dev/v1
kind: Bundle
collectedAt: 2026-02-03T04:05:06Z
clusters:
- {name: a, context: ctx-a, role: source}
- {name: b, role: destination}
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: backend, namespace: app, creationTimestamp: 2026-01-01T00:00:00Z}\n"
DNS = {
    "kind": "dns_answer", "at": "2026-01-01T00:00:00Z", "vantage": {"cluster": "a"}, "name": "x.", "type": "A",
    "server": "10.0.0.10:53", "transport": "udp", "result": "timeout", "ms": 2000, "future": True,
}  # fmt: skip


def lay(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_objects_facts_and_answers(tmp_path):
    lay(tmp_path, {
        "bundle.yaml": HEAD,
        "clusters/a/objects/x.yaml": SERVICE + "---\n" + SERVICE.replace("backend", "other"),
        "clusters/b/objects/l.json": json.dumps({"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "z"}}]}),
        "clusters/a/endpoints/istiod-1/debug/syncz": '[{"proxy": "p"}]',
        "facts/f.jsonl": json.dumps(DNS) + "\n" + json.dumps({"kind": "quantum", "at": "2026-01-01T00:00:00Z", "vantage": {}}) + "\n",
    })  # fmt: skip
    bundle = read_bundle(tmp_path)
    assert bundle.problems == ()
    assert (bundle.source, bundle.destination, bundle.cluster_named("ctx-a")) == ("a", "b", "a")
    objects = [f for f in bundle.facts if isinstance(f, KubeObject)]
    assert [(o.cluster, o.kind, o.namespace, o.name) for o in objects] == [
        ("a", "Service", "app", "backend"), ("a", "Service", "app", "other"), ("b", "Service", "default", "z"),
    ]  # fmt: skip
    assert objects[0].file == "clusters/a/objects/x.yaml:1"
    assert objects[1].file == "clusters/a/objects/x.yaml:5"
    assert json.dumps(objects[0].body)
    assert any(isinstance(f, DnsAnswer) for f in bundle.facts)
    assert [b.wanted for b in bundle.facts if isinstance(b, Blind)] == ["quantum"]


def test_broken_parts_are_named_and_the_rest_is_read(tmp_path):
    lay(tmp_path, {
        "clusters/a/objects/x.yaml": SERVICE + "---\nkind: [\n---\n" + SERVICE.replace("backend", "kept"),
        "clusters/a/objects/y.json": '{"kind": ',
        "clusters/a/objects/z.yaml": "just text\n",
        "clusters/a/objects/n.yaml": "apiVersion: v1\nkind: Service\nmetadata: {}\n",
        "facts/f.jsonl": '{"kind": "dns_answer"}\nnot json\n' + json.dumps(DNS),
    })  # fmt: skip
    bundle = read_bundle(tmp_path)
    assert [o.name for o in bundle.facts if isinstance(o, KubeObject)] == ["backend", "kept"]
    places = [p.where for p in bundle.problems]
    assert "clusters/a/objects/x.yaml:6" in places or "clusters/a/objects/x.yaml:5" in places
    assert "clusters/a/objects/y.json:1" in places
    assert "clusters/a/objects/z.yaml:1" in places
    assert "clusters/a/objects/n.yaml:1" in places
    assert {"facts/f.jsonl:1", "facts/f.jsonl:2"} <= set(places)
    assert sum(isinstance(f, DnsAnswer) for f in bundle.facts) == 1


def test_a_folder_of_manifests_is_one_cluster(tmp_path):
    lay(tmp_path, {"one/service.yml": SERVICE})
    bundle = read_bundle(tmp_path)
    assert (bundle.source, bundle.destination) == ("cluster", "cluster")
    assert len(bundle.facts) == 1
    assert len(read_bundle(tmp_path / "one/service.yml").facts) == 1


@pytest.mark.parametrize("name", ["../evil.yaml", "/etc/evil.yaml", "clusters/../../evil.yaml"])
def test_members_that_escape_are_refused(tmp_path, name):
    place = tmp_path / "b.tar.gz"
    with tarfile.open(place, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(BundleError, match="would leave the folder"):
        read_bundle(place)
    assert not (tmp_path.parent / "evil.yaml").exists()


def test_links_are_refused(tmp_path):
    place = tmp_path / "b.tar"
    with tarfile.open(place, "w") as archive:
        member = tarfile.TarInfo("clusters/a/objects/x.yaml")
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(BundleError, match="is a link"):
        read_bundle(place)
    folder = lay(tmp_path / "f", {"clusters/a/objects/y.yaml": SERVICE})
    (folder / "clusters/a/objects/x.yaml").symlink_to("/etc/hostname")
    assert "leaves the bundle" in str(read_bundle(folder).problems[0])


def test_not_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such file"):
        read_bundle(tmp_path / "none")
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b garbage")
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "x.tar.gz")
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match="neither"):
        read_bundle(tmp_path / "x.bin")


@pytest.mark.parametrize("name", ["out", "out.tar.gz", "out.tar"])
def test_what_is_written_reads_back_the_same(tmp_path, name):
    source = lay(tmp_path / "in", {
        "bundle.yaml": HEAD, "clusters/a/objects/x.yaml": SERVICE, "clusters/b/objects/x.yaml": SERVICE,
        "clusters/a/endpoints/p/certs": "text", "facts/f.jsonl": json.dumps(DNS),
    })  # fmt: skip
    first = read_bundle(source)
    clusters = [ClusterEntry(name="a", role="source"), ClusterEntry(name="b", role="destination")]
    write_bundle(tmp_path / name, first.facts, clusters, request={"source": "frontend"}, complete=["Service"])
    second = read_bundle(tmp_path / name)
    assert second.problems == ()
    assert second.request == {"source": "frontend"}
    assert second.complete == ("Service",)
    assert [type(f) for f in second.facts] == [type(f) for f in first.facts]
    assert [f.body for f in second.facts if isinstance(f, KubeObject)] == [f.body for f in first.facts if isinstance(f, KubeObject)]


def test_writing_refuses_a_full_folder(tmp_path):
    lay(tmp_path / "out", {"x": "y"})
    with pytest.raises(BundleError, match="not an empty folder"):
        write_bundle(tmp_path / "out", (), [ClusterEntry(name="a")])


def test_secrets_are_gone(tmp_path):
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: aHVudGVyMg==}\n"
    pod = 'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, env: [{name: DB_PASSWORD, value: hunter2}]}]}\n'
    lay(tmp_path, {"clusters/a/objects/x.yaml": secret + "---\n" + pod})
    text = json.dumps([f.body for f in read_bundle(tmp_path).facts if isinstance(f, KubeObject)])
    assert "hunter2" not in text and "aHVudGVyMg" not in text
