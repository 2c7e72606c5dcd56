"""Bundles: recorded objects and facts in a folder, a tar archive or one file, read and written.

    bundle.yaml                       apiVersion mcdoctor.dev/v1, kind Bundle
    clusters/NAME/objects/*           .yaml, .json, .jsonl
    clusters/NAME/endpoints/POD/PATH  answers of debug endpoints
    facts/*.jsonl                     facts, one JSON object a line

A folder without clusters/ is one cluster of plain manifests. Reading never fails for a bad part: the part is named as
a Problem with its file and line, and the rest is read. Only a bundle that cannot be opened at all is an error.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from mcdoctor.models.codec import Malformed, moment, timestamp
from mcdoctor.models.facts import Blind, EndpointAnswer, Fact, KubeObject
from mcdoctor.models.record import from_record, to_line
from mcdoctor.models.redact import redact_object
from mcdoctor.models.vantage import Vantage

API_VERSION = "mcdoctor.dev/v1"
_EPOCH = datetime.fromtimestamp(0, UTC)
_MANIFESTS = (".yaml", ".yml", ".json", ".jsonl")
_LARGEST = 512 * 1024 * 1024
_MOST_MEMBERS = 200_000


class BundleError(ValueError):
    """The bundle cannot be opened; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A part that could not be read: where and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEntry:
    """A cluster of the bundle: its name, the context it was read through, and its part in the flow."""

    name: str
    context: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What was read. `request` holds the recorded question: source, destination, namespace, toNamespace, port."""

    path: str
    clusters: tuple[ClusterEntry, ...]
    facts: tuple[Fact, ...]
    collected_at: datetime = _EPOCH
    request: Mapping[str, str] = field(default_factory=dict)
    complete: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def source(self) -> str:
        """The cluster with the role source, else the first."""
        return next((c.name for c in self.clusters if c.role == "source"), self.clusters[0].name)

    @property
    def destination(self) -> str:
        """The cluster with the role destination, else the first that is not the source, else the source."""
        named = next((c.name for c in self.clusters if c.role == "destination"), None)
        return named or next((c.name for c in self.clusters if c.name != self.source), self.source)

    def cluster_named(self, text: str | None) -> str | None:
        """The cluster of a name or context; raises BundleError when the text names none."""
        if text is None:
            return None
        for cluster in self.clusters:
            if text in (cluster.name, cluster.context):
                return cluster.name
        known = ", ".join(c.name for c in self.clusters)
        raise BundleError(f"the bundle has no cluster {text!r}; it has {known}")


# --- reading ------------------------------------------------------------------------------------------------------


def read_bundle(path: str | Path) -> Bundle:
    """The bundle at a path: a folder, .tar, .tar.gz, .tgz, or one manifest file; raises BundleError."""
    place = Path(path)
    if not place.exists():
        raise BundleError(f"{place}: no such file or folder")
    try:
        if place.is_dir():
            return _read_folder(place, str(place))
        if tarfile.is_tarfile(place):
            return _read_archive(place)
        if place.suffix in _MANIFESTS:
            return _read_single(place)
    except PermissionError as error:
        raise BundleError(f"{error.filename or place!s}: permission denied") from None
    except OSError as error:
        raise BundleError(f"{place}: {error.strerror or error}") from None
    raise BundleError(f"{place} is neither a folder, a tar archive nor a .yaml or .json file")


def _read_archive(place: Path) -> Bundle:
    with tempfile.TemporaryDirectory(prefix="mcdoctor-bundle-") as name:
        folder = Path(name)
        try:
            with tarfile.open(place) as archive:
                _unpack(archive, folder)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise BundleError(f"{place}: {error}") from None
        inner = [p for p in folder.iterdir() if p.is_dir()]
        root = folder
        if not (folder / "bundle.yaml").exists() and not (folder / "clusters").exists() and len(inner) == 1:
            root = inner[0]
        return _read_folder(root, str(place))


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Files only, written by our own hand: a member that would leave the folder refuses the whole archive."""
    total = 0
    for count, member in enumerate(archive):
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise BundleError(f"{archive.name!s}: member {member.name!r} would leave the folder; refused")
        if member.issym() or member.islnk():
            raise BundleError(f"{archive.name!s}: member {member.name!r} is a link; refused")
        if not member.isfile():
            continue
        total += member.size
        if total > _LARGEST or count > _MOST_MEMBERS:
            raise BundleError(
                f"{archive.name!s} holds more than {_LARGEST >> 20} MiB or {_MOST_MEMBERS} files; refused"
            )
        target = folder.joinpath(*name.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = archive.extractfile(member)
        if content is not None:
            target.write_bytes(content.read())


def _read_single(place: Path) -> Bundle:
    problems: list[Problem] = []
    cluster = "cluster"
    facts = list(_objects_in(place, place.name, cluster, _EPOCH, problems))
    return Bundle(path=str(place), clusters=(ClusterEntry(name=cluster),), facts=tuple(facts), problems=tuple(problems))


def _read_folder(root: Path, shown: str) -> Bundle:
    problems: list[Problem] = []
    head = _head(root, problems)
    collected = _collected(head, problems)
    folder = root / "clusters"
    facts: list[Fact] = []
    entries: list[ClusterEntry] = []
    if folder.is_dir():
        listed = [c for c in head.get("clusters") or () if isinstance(c, Mapping) and c.get("name")]
        names = {str(c["name"]): c for c in listed}
        on_disk = sorted(p.name for p in folder.iterdir() if p.is_dir())
        for name in [*names, *(n for n in on_disk if n not in names)]:
            about = names.get(name, {})
            entries.append(
                ClusterEntry(name=name, context=about.get("context") or None, role=about.get("role") or None)
            )
            facts.extend(_read_cluster(root, folder / name, name, collected, problems))
    else:
        entries.append(ClusterEntry(name="cluster"))
        for path in _files(root, problems):
            if path.suffix in _MANIFESTS and path.name != "bundle.yaml" and "facts" not in path.relative_to(root).parts:
                facts.extend(_objects_in(path, str(path.relative_to(root)), "cluster", collected, problems))
    for path in _files(root / "facts", problems):
        if path.suffix == ".jsonl":
            facts.extend(_facts_in(path, str(path.relative_to(root)), problems))
    if not entries:
        raise BundleError(f"{shown}: clusters/ is empty")
    request = head.get("request")
    complete = head.get("complete")
    whole = ("*",) if complete is True else tuple(str(k) for k in complete) if isinstance(complete, list) else ()
    return Bundle(
        path=shown,
        clusters=tuple(entries),
        facts=tuple(facts),
        collected_at=collected,
        request={str(k): str(v) for k, v in request.items()} if isinstance(request, Mapping) else {},
        complete=whole,
        problems=tuple(problems),
    )


def _head(root: Path, problems: list[Problem]) -> Mapping[str, Any]:
    place = root / "bundle.yaml"
    if not place.exists():
        return {}
    for _, document in _documents(".yaml", place.read_text("utf-8", errors="replace"), "bundle.yaml", problems):
        if isinstance(document, Mapping):
            version = document.get("apiVersion")
            if version != API_VERSION:
                problems.append(Problem(where="bundle.yaml", reason=f"apiVersion is {version!r}, not {API_VERSION!r}"))
            return document
    return {}


def _collected(head: Mapping[str, Any], problems: list[Problem]) -> datetime:
    value = head.get("collectedAt")
    if value is None:
        return _EPOCH
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        return moment(str(value))
    except ValueError:
        problems.append(Problem(where="bundle.yaml", reason="collectedAt is not a time"))
        return _EPOCH


def _files(root: Path, problems: list[Problem]) -> Iterator[Path]:
    """Regular files below a folder, in order; links that lead out of it are a problem, not read."""
    if not root.is_dir():
        return
    top = root.resolve()
    for path in sorted(root.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(top):
            problems.append(Problem(where=str(path.relative_to(root)), reason="is a link that leaves the bundle"))
        elif path.is_file() and not path.name.startswith("."):
            yield path


def _read_cluster(root: Path, folder: Path, name: str, collected: datetime, problems: list[Problem]) -> Iterator[Fact]:
    for path in _files(folder / "objects", problems):
        if path.suffix in _MANIFESTS:
            yield from _objects_in(path, str(path.relative_to(root)), name, collected, problems)
    answers = folder / "endpoints"
    for path in _files(answers, problems):
        pod, *rest = path.relative_to(answers).parts
        text = path.read_text("utf-8", errors="replace")
        body: Any = text
        if text.lstrip()[:1] in ("{", "["):
            try:
                body = json.loads(text)
            except ValueError as error:
                problems.append(Problem(where=str(path.relative_to(root)), reason=f"is not whole JSON: {error}"))
        at = Vantage(cluster=name, host="api")
        yield EndpointAnswer(at=collected, vantage=at, cluster=name, pod=pod, path="/".join(rest), body=body)


def _objects_in(
    path: Path, shown: str, cluster: str, collected: datetime, problems: list[Problem]
) -> Iterator[KubeObject]:
    vantage = Vantage(cluster=cluster, host="api")
    text = path.read_text("utf-8", errors="replace")
    for line, document in _documents(path.suffix, text, shown, problems):
        for body in _flatten(document):
            metadata = body.get("metadata") if isinstance(body, Mapping) else None
            if not isinstance(body, Mapping) or not isinstance(body.get("kind"), str):
                if body is not None:
                    problems.append(Problem(where=f"{shown}:{line}", reason="is not a Kubernetes object (no kind)"))
                continue
            if not isinstance(metadata, Mapping) or not metadata.get("name"):
                problems.append(Problem(where=f"{shown}:{line}", reason=f"a {body['kind']} without metadata.name"))
                continue
            if not isinstance(body.get("apiVersion"), str):
                problems.append(Problem(where=f"{shown}:{line}", reason=f"a {body['kind']} without apiVersion"))
                continue
            yield KubeObject(
                at=collected,
                vantage=vantage,
                cluster=cluster,
                body=redact_object(_with_namespace(dict(body))),
                file=f"{shown}:{line}",
            )


_CLUSTER_SCOPED = frozenset(
    {
        "Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
        "GatewayClass", "IngressClass", "StorageClass", "PriorityClass", "APIService",
        "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy", "CiliumClusterwideNetworkPolicy", "CiliumNode",
        "CiliumIdentity", "CiliumCIDRGroup", "GlobalNetworkPolicy", "GlobalNetworkSet", "Tier", "IPPool",
        "FelixConfiguration", "BGPPeer", "BGPConfiguration", "HostEndpoint", "StagedGlobalNetworkPolicy", "Profile",
        "ClusterSPIFFEID", "ClusterFederatedTrustDomain", "ClusterStaticEntry",
    }
)  # fmt: skip


def _with_namespace(body: dict[str, Any]) -> dict[str, Any]:
    """A namespaced object without a namespace is in `default`, as kubectl apply would have it."""
    metadata = body["metadata"]
    if not metadata.get("namespace") and body["kind"] not in _CLUSTER_SCOPED:
        body["metadata"] = {**metadata, "namespace": "default"}
    return body


def _flatten(document: Any) -> Iterator[Any]:
    """Lists of any kind (`List`, `PodList`) as their items, which inherit kind and version where they lack them."""
    if isinstance(document, list):
        for inner in document:
            yield from _flatten(inner)
        return
    items = document.get("items") if isinstance(document, Mapping) else None
    if isinstance(document, Mapping) and isinstance(items, list) and str(document.get("kind", "")).endswith("List"):
        kind = str(document["kind"])[: -len("List")]
        for item in items:
            if isinstance(item, dict) and kind:
                yield {"apiVersion": document.get("apiVersion"), "kind": kind, **item}
            else:
                yield from _flatten(item)
        return
    yield document


def _documents(suffix: str, text: str, shown: str, problems: list[Problem]) -> Iterator[tuple[int, Any]]:
    """(line, document) of a YAML, JSON or JSON-lines text; what is broken is a problem with its line."""
    if suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    problems.append(Problem(where=f"{shown}:{number}", reason=f"is not JSON: {error}"))
        return
    if suffix == ".json":
        try:
            yield 1, json.loads(text)
        except ValueError as error:
            number = getattr(error, "lineno", 1)
            problems.append(Problem(where=f"{shown}:{number}", reason=f"is not JSON: {error}"))
        return
    yield from _yaml(text, shown, problems)


def _yaml(text: str, shown: str, problems: list[Problem]) -> Iterator[tuple[int, Any]]:
    """Documents one by one, so that a broken one costs only itself."""
    import yaml

    loader = _loader()
    start = 0
    lines = text.split("\n")
    for end in [*(i for i, line in enumerate(lines) if line.rstrip() == "---" or line.startswith("--- ")), len(lines)]:
        chunk = "\n".join(lines[start:end])
        if chunk.strip():
            try:
                document = yaml.load(chunk, Loader=loader)  # noqa: S506 - a safe loader
                if document is not None:
                    yield start + 1, document
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                mark = getattr(error, "problem_mark", None)
                line = start + (mark.line if mark else 0) + 1
                reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
                problems.append(Problem(where=f"{shown}:{line}", reason=f"is not YAML: {reason}"))
        start = end if end == len(lines) else end + (lines[end].rstrip() == "---")
        if end < len(lines) and lines[end].startswith("--- "):
            lines[end] = lines[end][4:]


@cache
def _loader() -> Any:
    """A safe YAML loader, in C where there is one, that leaves times as text, as JSON does."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    return type("PlainLoader", (base,), {"yaml_implicit_resolvers": resolvers})


def _facts_in(path: Path, shown: str, problems: list[Problem]) -> Iterator[Fact]:
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield from_record(json.loads(line))
        except (Malformed, ValueError, RecursionError) as error:
            problems.append(Problem(where=f"{shown}:{number}", reason=str(error) or "is not a fact"))


# --- writing ------------------------------------------------------------------------------------------------------


def write_bundle(
    path: str | Path,
    facts: Iterable[Fact],
    clusters: Iterable[ClusterEntry],
    *,
    request: Mapping[str, str] | None = None,
    complete: Iterable[str] = (),
    collected_at: datetime | None = None,
) -> None:
    """Writes a bundle: a folder, or a .tar.gz when the name ends so; raises BundleError when that is not possible."""
    place = Path(path)
    files = dict(_layout(facts, tuple(clusters), request or {}, tuple(complete), collected_at or datetime.now(UTC)))
    try:
        if place.name.endswith((".tar.gz", ".tgz", ".tar")):
            with tarfile.open(place, "w" if place.suffix == ".tar" else "w:gz") as archive:
                for name, text in files.items():
                    data = text.encode()
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
            return
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise BundleError(f"{place} exists and is not an empty folder")
        for name, text in files.items():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    except OSError as error:
        raise BundleError(f"{error.filename or place}: {error.strerror or error}") from None


def _layout(
    facts: Iterable[Fact],
    clusters: tuple[ClusterEntry, ...],
    request: Mapping[str, str],
    complete: tuple[str, ...],
    collected_at: datetime,
) -> Iterator[tuple[str, str]]:
    head: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Bundle",
        "collectedAt": timestamp(collected_at),
        "clusters": [
            {k: v for k, v in (("name", c.name), ("context", c.context), ("role", c.role)) if v} for c in clusters
        ],
    }
    if request:
        head["request"] = dict(request)
    if complete:
        head["complete"] = True if "*" in complete else list(complete)
    yield "bundle.yaml", json.dumps(head, ensure_ascii=False, indent=2) + "\n"
    objects: dict[str, list[str]] = {}
    lines: list[str] = []
    for fact in facts:
        if isinstance(fact, KubeObject):
            line = json.dumps(fact.body, ensure_ascii=False, separators=(",", ":"))
            objects.setdefault(fact.cluster, []).append(line)
        elif isinstance(fact, EndpointAnswer):
            path = PurePosixPath("clusters", fact.cluster, "endpoints", fact.pod, fact.path.lstrip("/"))
            if ".." in path.parts:
                continue
            yield str(path), fact.body if isinstance(fact.body, str) else json.dumps(fact.body, ensure_ascii=False)
        elif not (isinstance(fact, Blind) and fact.at == datetime.fromtimestamp(0, UTC)):
            lines.append(to_line(fact))
    for cluster, bodies in objects.items():
        yield f"clusters/{cluster}/objects/objects.jsonl", "\n".join(bodies) + "\n"
    for entry in clusters:
        if entry.name not in objects:
            yield f"clusters/{entry.name}/objects/objects.jsonl", ""
    if lines:
        yield "facts/facts.jsonl", "\n".join(lines) + "\n"
