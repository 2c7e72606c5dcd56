"""Kubeconfig: which contexts there are, and an `Api` for one of them, authenticated by the official client."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mcdoctor.kube.errors import KubeConfigError, one_line
from mcdoctor.kube.transport import Api, Identity

IN_CLUSTER = "in-cluster"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_loading = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context as the kubeconfig has it; `server` is the URL of its cluster, empty when the cluster is missing."""

    name: str
    cluster: str
    server: str = ""
    user: str = ""
    namespace: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All contexts of the kubeconfig files, in their order; `files` is the search path joined by the separator.

    `files` is None inside a pod without a kubeconfig: there the service account is the only context.
    """

    all: tuple[Context, ...]
    current: str | None
    files: str | None
    users: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.all)

    def named(self, name: str | None) -> Context:
        """The context of that name, or the current one for None; raises KubeConfigError with the known names."""
        wanted = self.current if name is None else name
        if wanted is None:
            raise KubeConfigError(f"no current context is set; choose one with --context: {self._known()}")
        for context in self.all:
            if context.name == wanted:
                return context
        near = get_close_matches(wanted, self.names(), 1)
        hint = f" (did you mean {one_line(near[0])}?)" if near else ""
        raise KubeConfigError(f"there is no context {one_line(wanted)!r}{hint}; known: {self._known()}")

    def _known(self) -> str:
        names = self.names()
        shown = ", ".join(one_line(n, 80) for n in names[:20])
        return (shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")) or "none"


def contexts(kubeconfig: str | None = None, *, environ: Mapping[str, str] = os.environ) -> Contexts:
    """Reads `--kubeconfig`, else the files of $KUBECONFIG, else ~/.kube/config, else the pod's service account.

    As in kubectl, the first file that names a context, cluster, user or the current context wins. Raises
    KubeConfigError: no file, unreadable, not YAML (with file and line), not a kubeconfig.
    """
    paths = _paths(kubeconfig, environ)
    found = [p for p in paths if p.is_file()]
    if not found:
        if kubeconfig is None and environ.get("KUBERNETES_SERVICE_HOST") and (_SERVICE_ACCOUNT / "token").is_file():
            return _in_cluster(environ)
        where = ", ".join(map(str, paths)) or "no file named in KUBECONFIG"
        raise KubeConfigError(f"no kubeconfig: {where} does not exist; give --kubeconfig or set KUBECONFIG")
    clusters: dict[str, Mapping[str, Any]] = {}
    users: dict[str, Mapping[str, Any]] = {}
    entries: dict[str, Mapping[str, Any]] = {}
    current: str | None = None
    for path in found:
        document = _document(path)
        current = current or document.get("current-context") or None
        for section, inner, into in (
            ("clusters", "cluster", clusters),
            ("users", "user", users),
            ("contexts", "context", entries),
        ):
            for name, value in _named(document, section, inner, path):
                into.setdefault(name, value)
    listed = tuple(
        Context(
            name=name,
            cluster=str(entry.get("cluster", "")),
            server=str(clusters.get(str(entry.get("cluster", "")), {}).get("server", "")),
            user=str(entry.get("user", "")),
            namespace=str(entry.get("namespace") or "default"),
        )
        for name, entry in entries.items()
    )
    return Contexts(all=listed, current=current, files=os.pathsep.join(map(str, found)), users=users)


def connect(
    context: str | None = None,
    *,
    kubeconfig: str | None = None,
    as_user: str | None = None,
    as_groups: Sequence[str] = (),
    request_timeout: float | None = None,
    deadline: float = float("inf"),
    known: Contexts | None = None,
) -> Api:
    """An Api for a context; nothing is sent yet (but a credential plug-in may run). Raises KubeConfigError."""
    known = known or contexts(kubeconfig)
    chosen = known.named(context)
    if as_groups and not as_user:
        raise KubeConfigError("--as-group needs --as")
    from kubernetes import client, config

    configuration = client.Configuration()
    with _loader_messages() as messages:
        try:
            if known.files is None:
                config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(known.files, chosen.name, configuration)  # type: ignore[no-untyped-call]
        except Exception as error:  # the loader raises whatever a malformed entry makes it stumble over
            raise KubeConfigError(f"context {chosen.name!r}: {one_line(str(error))}") from None
    user = known.users.get(chosen.user, {})
    if "exec" in user and not configuration.api_key and not configuration.cert_file:
        plugin = (user["exec"] or {}).get("command", "?") if isinstance(user["exec"], Mapping) else "?"
        why = one_line("; ".join(messages)) or "it gave no credentials"
        raise KubeConfigError(f"context {chosen.name!r}: the credential plug-in {one_line(str(plugin))} failed: {why}")
    if not str(configuration.host).startswith(("http://", "https://")):
        raise KubeConfigError(f"context {chosen.name!r}: its cluster has no usable server address")

    def authorise() -> Mapping[str, str]:
        with _loader_messages():
            setting = configuration.auth_settings().get("BearerToken")
        return {setting["key"]: setting["value"]} if setting and setting["value"] else {}

    return Api(
        configuration,
        context=chosen.name,
        namespace=chosen.namespace,
        identity=_identity(user, as_user, as_groups),
        timeout=15.0 if request_timeout is None else request_timeout,
        deadline=deadline,
        authorise=authorise,
        kubeconfig=kubeconfig,
    )


def _identity(user: Mapping[str, Any], as_user: str | None, as_groups: Sequence[str]) -> Identity:
    if as_user:
        return Identity(as_user, tuple(as_groups))
    extra = user.get("as-user-extra")
    return Identity(
        user.get("as") or None,
        tuple(map(str, user.get("as-groups") or ())),
        user.get("as-uid") or None,
        tuple((k, str(v)) for k, vs in extra.items() for v in vs or ()) if isinstance(extra, Mapping) else (),
    )


def _paths(kubeconfig: str | None, environ: Mapping[str, str]) -> list[Path]:
    if kubeconfig:
        return [Path(kubeconfig).expanduser()]
    if names := environ.get("KUBECONFIG"):
        return [Path(p).expanduser() for p in names.split(os.pathsep) if p]
    return [Path(environ.get("HOME") or "~").expanduser() / ".kube" / "config"]


def _document(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        loaded = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # safe loaders
    except OSError as error:
        raise KubeConfigError(f"kubeconfig {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise KubeConfigError(f"kubeconfig {path}{line} is not YAML: {one_line(str(problem))}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, Mapping):
        raise KubeConfigError(f"kubeconfig {path} is not a kubeconfig: expected clusters, users and contexts")
    return loaded


def _named(
    document: Mapping[str, Any], section: str, inner: str, path: Path
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    entries = document.get(section) or []
    if not isinstance(entries, list):
        raise KubeConfigError(f"kubeconfig {path}: {section} is not a list")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise KubeConfigError(f"kubeconfig {path}: entry {number} of {section} has no name")
        value = entry.get(inner) or {}
        if not isinstance(value, Mapping):
            raise KubeConfigError(f"kubeconfig {path}: {inner} of {entry['name']!r} in {section} is not an object")
        yield entry["name"], value


def _in_cluster(environ: Mapping[str, str]) -> Contexts:
    namespace = _SERVICE_ACCOUNT / "namespace"
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    only = Context(
        name=IN_CLUSTER,
        cluster=IN_CLUSTER,
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
    )
    return Contexts(all=(only,), current=IN_CLUSTER, files=None, users={})


@contextmanager
def _loader_messages() -> Iterator[list[str]]:
    """What the official loader says by `logging` about a failed plug-in, instead of raising it."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    root, handler = logging.getLogger(), Collect(logging.ERROR)
    with _loading:
        others = root.handlers[:]
        root.handlers[:] = [handler]
        try:
            yield messages
        finally:
            root.handlers[:] = others
