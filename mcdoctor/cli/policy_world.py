"""The objects that policy commands are asked about, from a bundle, from files or from live clusters."""

from __future__ import annotations

import gc
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mcdoctor.cli.errors import FAILED, fail
from mcdoctor.policy.documents import Problem, parse
from mcdoctor.policy.world import ClusterInput, Document

_MANIFESTS = (".yaml", ".yml", ".json", ".jsonl")
_BESIDE = {"bundle.yaml", "expect.yaml", "lab.yaml", "kustomization.yaml", "Chart.yaml", "values.yaml"}
_LARGEST = 1024 * 1024 * 1024


@dataclass(slots=True)
class Loaded:
    """Clusters by name in the order found, their documents, and what could not be read or seen."""

    documents: dict[str, list[Document]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Context name -> cluster name."""
    problems: list[Problem] = field(default_factory=list)
    unseen: dict[str, list[str]] = field(default_factory=dict)
    """Cluster name -> policy kinds that may exist but could not be read."""

    def inputs(self, cni: Mapping[str, str]) -> list[ClusterInput]:
        """`cni`: cluster name -> plugin; '' is the plugin of all clusters not named."""
        return [
            ClusterInput(
                name,
                documents,
                self.roles.get(name, ""),
                cni.get(name, cni.get("", "")),
                tuple(self.unseen.get(name, ())),
            )
            for name, documents in self.documents.items()
        ]


def read_bundle(path: Path) -> Loaded:
    """A bundle or plain manifests: a folder, a tar archive or one file. Bad parts become problems; ends the command
    only when nothing can be opened."""
    loaded = Loaded()
    if not path.exists():
        fail(f"{path}: no such file or folder")
    enabled = gc.isenabled()
    gc.disable()  # objects only grow while reading: collections would walk them all again and again
    try:
        if path.is_dir():
            _read_files(_folder(path, loaded), loaded)
        elif path.suffix in _MANIFESTS:
            _read_files([(PurePosixPath(path.name), path.read_bytes)], loaded)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                _read_files(_archive(archive, path), loaded)
        else:
            fail(f"{path} is neither a folder, a tar archive nor a .yaml or .json file")
    except (OSError, tarfile.TarError, EOFError) as error:
        fail(f"{path}: {getattr(error, 'strerror', None) or error}")
    finally:
        if enabled:
            gc.enable()
            gc.freeze()
    return loaded


def _folder(root: Path, loaded: Loaded) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    top = root.resolve()
    for path in sorted(root.rglob("*")):
        name = PurePosixPath(path.relative_to(root).as_posix())
        if path.is_symlink() and not path.resolve().is_relative_to(top):
            loaded.problems.append(Problem(str(name), None, "is a link that leaves the folder"))
        elif path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name, path.read_bytes


def _archive(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """Members read in memory; one that would leave the archive's folder refuses the whole."""
    total = 0
    found: list[tuple[PurePosixPath, tarfile.TarInfo]] = []
    for member in archive:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or member.issym() or member.islnk():
            fail(f"{path}: member {member.name!r} would leave the folder or is a link; refused")
        if member.isfile():
            total += member.size
            found.append((name, member))
    if total > _LARGEST:
        fail(f"{path} unpacks to more than {_LARGEST >> 20} MiB; refused")
    tops = {name.parts[0] for name, _ in found}
    inner = len(tops) == 1 and not tops & {"clusters", "bundle.yaml"} and all(len(name.parts) > 1 for name, _ in found)
    for name, member in found:

        def content(member: tarfile.TarInfo = member) -> bytes:
            stream = archive.extractfile(member)
            return stream.read() if stream else b""

        yield (PurePosixPath(*name.parts[1:]) if inner else name), content


def _read_files(files: Iterable[tuple[PurePosixPath, Callable[[], bytes]]], loaded: Loaded) -> None:
    listed = list(files)
    head = next((content for name, content in listed if str(name) == "bundle.yaml"), None)
    if head is not None:
        _head(head().decode("utf-8", "replace"), loaded)
    in_clusters = any(name.parts[0] == "clusters" for name, _ in listed)
    for name, content in listed:
        if name.suffix not in _MANIFESTS:
            continue
        if in_clusters:
            if len(name.parts) < 4 or name.parts[0] != "clusters" or name.parts[2] != "objects":
                continue
            cluster = name.parts[1]
        elif name.name in _BESIDE or "facts" in name.parts[:-1]:
            continue
        else:
            cluster = "cluster"
        documents, problems = parse(content().decode("utf-8", "replace"), str(name))
        loaded.documents.setdefault(cluster, []).extend(documents)
        loaded.problems.extend(problems)
    if not loaded.documents:
        loaded.documents["cluster"] = []


def _head(text: str, loaded: Loaded) -> None:
    documents, problems = parse(text, "bundle.yaml")
    loaded.problems.extend(problems)
    for document in documents[:1]:
        clusters = document.object.get("clusters")
        for entry in clusters if isinstance(clusters, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                name = entry["name"]
                loaded.documents.setdefault(name, [])
                if isinstance(entry.get("role"), str):
                    loaded.roles[name] = entry["role"]
                if isinstance(entry.get("context"), str):
                    loaded.aliases[entry["context"]] = name


def read_text(path: str) -> str:
    """A file, or stdin for "-", bytes that are no UTF-8 replaced; ends the command when it cannot be read."""
    try:
        return (sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()).decode("utf-8", "replace")
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")


# The kinds a live policy question reads, everywhere in the cluster; kinds the server does not know are no limit.
LIVE_KINDS = (
    "Namespace", "Node", "Pod", "Service", "EndpointSlice.discovery.k8s.io", "NetworkPolicy.networking.k8s.io",
    "DaemonSet.apps",
    "AuthorizationPolicy.security.istio.io", "PeerAuthentication.security.istio.io",
    "RequestAuthentication.security.istio.io", "Sidecar.networking.istio.io", "ServiceEntry.networking.istio.io",
    "DestinationRule.networking.istio.io", "Gateway.gateway.networking.k8s.io",
    "CiliumNetworkPolicy.cilium.io", "CiliumClusterwideNetworkPolicy.cilium.io", "CiliumCIDRGroup.cilium.io",
    "NetworkPolicy.crd.projectcalico.org", "GlobalNetworkPolicy.crd.projectcalico.org",
    "NetworkSet.crd.projectcalico.org", "GlobalNetworkSet.crd.projectcalico.org", "Tier.crd.projectcalico.org",
    "HostEndpoint.crd.projectcalico.org", "IPPool.crd.projectcalico.org", "ServiceAccount",
    "NetworkPolicy.projectcalico.org", "GlobalNetworkPolicy.projectcalico.org", "NetworkSet.projectcalico.org",
    "GlobalNetworkSet.projectcalico.org", "Tier.projectcalico.org", "HostEndpoint.projectcalico.org",
    "FelixConfiguration.crd.projectcalico.org", "FelixConfiguration.projectcalico.org", "IPPool.projectcalico.org",
    "AdminNetworkPolicy.policy.networking.k8s.io", "BaselineAdminNetworkPolicy.policy.networking.k8s.io",
    "ClusterNetworkPolicy.policy.networking.k8s.io",
    "Server.policy.linkerd.io", "ServerAuthorization.policy.linkerd.io", "AuthorizationPolicy.policy.linkerd.io",
    "MeshTLSAuthentication.policy.linkerd.io", "NetworkAuthentication.policy.linkerd.io",
    "EgressNetwork.policy.linkerd.io", "HTTPRoute.policy.linkerd.io", "HTTPRoute.gateway.networking.k8s.io",
    "GRPCRoute.gateway.networking.k8s.io", "TLSRoute.gateway.networking.k8s.io", "TCPRoute.gateway.networking.k8s.io",
    "Link.multicluster.linkerd.io", "Cluster.submariner.io", "Endpoint.submariner.io",
    "ClusterGlobalEgressIP.submariner.io", "GlobalEgressIP.submariner.io", "GlobalIngressIP.submariner.io",
)  # fmt: skip
LIVE_CONFIG = (
    ("kube-system", "cilium-config"), ("istio-system", "istio"), ("linkerd", "linkerd-config"),
)  # fmt: skip


def read_live(
    contexts: Sequence[str | None], kubeconfig: str | None, as_user: str | None, groups: Sequence[str]
) -> Loaded:
    """The policy objects of live clusters, one a context (None = the current one). What is hidden is a problem."""
    from mcdoctor.kube.config import connect
    from mcdoctor.kube.errors import KubeConfigError
    from mcdoctor.kube.reader import ApiReader
    from mcdoctor.models.facts import Blind, KubeObject

    loaded = Loaded()
    for context in contexts:
        try:
            api = connect(context, kubeconfig=kubeconfig, as_user=as_user, as_groups=groups)
            reader = ApiReader(api)
            reader.check()
        except KubeConfigError as error:
            fail(str(error), FAILED if context else 2)
        documents: list[Document] = loaded.documents.setdefault(reader.cluster, [])
        facts: list[Any] = [fact for kind in LIVE_KINDS for fact in reader.list(kind)]
        facts += [reader.get("ConfigMap", namespace, name) for namespace, name in LIVE_CONFIG]
        for fact in facts:
            if isinstance(fact, KubeObject):
                documents.append(Document(fact.body))
            elif isinstance(fact, Blind):
                told = f"{fact.about} could not be seen: {fact.reason}"
                loaded.problems.append(Problem(reader.cluster, None, told))
                if "Polic" in fact.about or "Authorization" in fact.about:
                    loaded.unseen.setdefault(reader.cluster, []).append(told)
    return loaded
