"""The target grammar: `[KIND/]NAME[.NAMESPACE][:PORT][@CONTEXT]`, a host name, a URL or an address.

Split at the first `@`, since context names hold `:`, `/` and `@`. One dot means a namespace when that namespace
exists (`settle` decides, once namespaces are known); two dots or more, a trailing dot or a scheme make a host name.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from mcdoctor.models.flow import Target

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([-A-Za-z0-9_]{0,62})(\.[A-Za-z0-9_]([-A-Za-z0-9_]{0,62}))*")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_SCHEMES = {"http": "80", "https": "443", "grpc": "80", "grpcs": "443", "tcp": None, "tls": None}

KINDS = {
    "pod": "Pod", "pods": "Pod", "po": "Pod",
    "service": "Service", "services": "Service", "svc": "Service",
    "deployment": "Deployment.apps", "deployments": "Deployment.apps", "deploy": "Deployment.apps",
    "statefulset": "StatefulSet.apps", "statefulsets": "StatefulSet.apps", "sts": "StatefulSet.apps",
    "daemonset": "DaemonSet.apps", "daemonsets": "DaemonSet.apps", "ds": "DaemonSet.apps",
    "replicaset": "ReplicaSet.apps", "replicasets": "ReplicaSet.apps", "rs": "ReplicaSet.apps",
    "job": "Job.batch", "jobs": "Job.batch",
    "serviceimport": "ServiceImport.multicluster.x-k8s.io", "serviceimports": "ServiceImport.multicluster.x-k8s.io",
}  # fmt: skip


class TargetError(ValueError):
    """The text is not a target; the message is one line for the user."""


def parse_target(text: str) -> Target:
    """A target from its text; raises TargetError. Exactly one dot gives an object with a namespace: see `settle`."""
    if not text.strip():
        raise TargetError("a target is empty")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise TargetError(f"{text[:60]!r} holds control characters")
    body, at, context = text.partition("@")
    if at and not context:
        raise TargetError(f"{text!r}: a context name is missing after '@'")
    context_name = context or None
    if match := _SCHEME.match(body):
        return _url(text, body, match.group(1), context_name)
    if address := _address(body):
        return Target(text=text, form="address", name=address[0], port=address[1], context=context_name)
    kind, slash, rest = body.partition("/")
    if not slash:
        kind, rest = "", body
    resolved = None
    if slash:
        resolved = KINDS.get(kind.lower())
        if resolved is None:
            known = "deploy, sts, ds, rs, job, pod, svc, serviceimport"
            raise TargetError(f"{text!r}: {kind!r} is not a kind that can be an end of a flow (try one of {known})")
    name, colon, port = rest.partition(":")
    if colon:
        port = _port(text, port)
    dots = name.count(".")
    if not resolved and (dots >= 2 or name.endswith(".")):
        return _host(text, name, port or None, context_name)
    if not resolved and not _NAME.fullmatch(name) and dots and _HOST.fullmatch(name):
        return _host(text, name, port or None, context_name)
    name, _, namespace = name.rpartition(".") if "." in name else (name, "", "")
    for part in (name, namespace):
        if part and not _NAME.fullmatch(part):
            raise TargetError(f"{text!r}: {part!r} is not a Kubernetes name (lower case letters, digits, '-')")
    if not name:
        raise TargetError(f"{text!r}: the name is missing")
    return Target(
        text=text,
        form="object",
        name=name,
        kind=resolved,
        namespace=namespace or None,
        port=port or None,
        context=context_name,
    )


def settle(target: Target, namespace_exists: Callable[[str], bool]) -> Target:
    """`NAME.SOMETHING` without a kind is a host name where SOMETHING is no namespace (`example.com`)."""
    if target.form != "object" or target.kind or not target.namespace or namespace_exists(target.namespace):
        return target
    return dataclasses.replace(target, form="host", name=f"{target.name}.{target.namespace}", namespace=None)


def _port(text: str, port: str) -> str:
    if port.isascii() and port.isdigit():
        if not 1 <= int(port) <= 65535:
            raise TargetError(f"{text!r}: port {port} is not between 1 and 65535")
        return str(int(port))
    if _PORT_NAME.fullmatch(port):
        return port
    raise TargetError(f"{text!r}: {port!r} is neither a port number nor a port name")


def _host(text: str, name: str, port: str | None, context: str | None) -> Target:
    host = name[:-1] if name.endswith(".") else name
    if not _HOST.fullmatch(host):
        raise TargetError(f"{text!r}: {name!r} is not a host name")
    return Target(text=text, form="host", name=host.lower(), port=port, context=context)


def _address(body: str) -> tuple[str, str | None] | None:
    """`10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]`, `[fd00::1]:80`; None when it is none of these."""
    bracket = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d+))?", body)
    host, port = bracket.groups() if bracket else (body, None)
    if not bracket and body.count(":") == 1:
        host, _, port = body.partition(":")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return str(address), _port(body, port) if port else None


def _url(text: str, body: str, scheme: str, context: str | None) -> Target:
    if scheme not in _SCHEMES:
        raise TargetError(f"{text!r}: scheme {scheme!r} is not one of {', '.join(_SCHEMES)}")
    try:
        parts = urlsplit(body)
        port = parts.port
    except ValueError:
        # not repeated: it may hold a password
        raise TargetError(f"what follows {scheme}:// is not a URL; leave out user names and passwords") from None
    if not parts.hostname:
        raise TargetError(f"{text!r}: the host is missing")
    default = _SCHEMES[scheme]
    if port is None and default is None:
        raise TargetError(f"{text!r}: {scheme} needs a port")
    if port == 0:
        raise TargetError(f"{text!r}: port 0 is not between 1 and 65535")
    path = parts.path or None
    if parts.query:
        path = f"{path or '/'}?{parts.query}"
    number = str(port) if port else default
    if address := _address(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname):
        return Target(
            text=text, form="address", name=address[0], port=number, context=context, scheme=scheme, path=path
        )
    host = _host(text, parts.hostname, number, context)
    return dataclasses.replace(host, scheme=scheme, path=path)
