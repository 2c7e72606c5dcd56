"""Reads one live cluster: raw JSON in, redacted facts out. Every way in which reading can fail has its fact."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from mcdoctor.kube.errors import Answer, KubeConfigError, NoAnswer, one_line
from mcdoctor.kube.forward import http_get
from mcdoctor.kube.resources import BUILT_IN, Discovery, Resource, Unserved
from mcdoctor.kube.transport import Api, Refused
from mcdoctor.models.facts import Absent, Blind, EndpointAnswer, Fact, KubeObject, Listed
from mcdoctor.models.redact import redact_object, redact_text
from mcdoctor.models.vantage import Vantage

PAGE = 500
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class ApiReader:
    """`ports.ClusterReader` over an API server. Safe to use from several threads."""

    def __init__(self, api: Api, cluster: str | None = None) -> None:
        """`cluster`: its name in this run, the context's name unless given."""
        self.api = api
        self._cluster = cluster or api.context
        self._discovery = Discovery(api)

    @property
    def cluster(self) -> str:
        return self._cluster

    def check(self) -> str:
        """The server's version, such as `v1.36.2`; raises KubeConfigError when it cannot be asked at all."""
        try:
            answer = self.api.get("/version")
            version = answer.json() if answer.ok else None
        except NoAnswer as failure:
            raise KubeConfigError(f"cluster {self.cluster} ({self.api.server}): {failure}") from None
        except ValueError:
            version = None
        if answer.status == 401:
            raise KubeConfigError(f"cluster {self.cluster} ({self.api.server}): {self._unauthorised()}")
        if not isinstance(version, Mapping) or "gitVersion" not in version:
            if answer.status == 403:
                return "unknown"  # some servers keep their version to themselves
            raise KubeConfigError(
                f"cluster {self.cluster}: what answers at {self.api.server} is not a Kubernetes API server"
                f" (GET /version: {answer.status})"
            )
        return one_line(str(version["gitVersion"]), 60)

    # --- objects ---

    def get(self, kind: str, namespace: str | None, name: str) -> Fact:
        """KubeObject, Absent or Blind."""
        about = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        try:
            resource, answer = self._ask(kind, lambda r: r.path(namespace, name), ())
        except Unserved:
            return Absent(at=_now(), vantage=self._vantage, cluster=self.cluster, wanted=kind)
        except NoAnswer as failure:
            return self._blind(kind, about, str(failure), None, self._kubectl("get", kind, namespace, name))
        if answer.status == 404 and _names_object(answer):
            return Absent(
                at=_now(),
                vantage=self._vantage,
                cluster=self.cluster,
                wanted=kind,
                namespace=namespace if resource.namespaced else None,
                name=name,
            )
        if not answer.ok:
            command = self._kubectl("get", resource.full, namespace if resource.namespaced else None, name)
            return self._refusal("get", kind, about, resource, namespace, answer, command)
        body = _object(answer)
        if body is None or not body.get("kind"):
            return self._blind(kind, about, "the answer is not a Kubernetes object", None, None, answer.status)
        return self._fact(body, _now())

    def list(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Sequence[Fact]:
        """The objects and one Listed; or Absent (the server does not know the kind); or Blind, perhaps after some
        objects (those of the pages that came whole)."""
        about = f"{kind} in {namespace}" if namespace else kind
        selectors = [(k, v) for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v]
        facts: list[Fact] = []
        token, limit, expired = "", PAGE, False
        while True:
            query = [*selectors, *([("limit", str(limit))] if limit else []), *([("continue", token)] if token else [])]
            command = self._kubectl("get", kind, namespace, None, labels, fields)
            try:
                resource, answer = self._ask(kind, lambda r: r.path(namespace), query)
            except Unserved:
                return [Absent(at=_now(), vantage=self._vantage, cluster=self.cluster, wanted=kind)]
            except NoAnswer as failure:
                return [*facts, self._blind(kind, about, str(failure), None, command)]
            if answer.status == 410 and not expired:
                # The snapshot behind the continue token is gone: read again, whole, as client-go does.
                facts, token, limit, expired = [], "", 0, True
                continue
            if not answer.ok:
                command = self._kubectl("get", resource.full, namespace, None, labels, fields)
                return [*facts, self._refusal("list", kind, about, resource, namespace, answer, command)]
            page = _object(answer)
            items = page.get("items") if page is not None else None
            if page is None or not (items is None or isinstance(items, list)) or "metadata" not in page:
                return [*facts, self._blind(kind, about, "the answer is not a Kubernetes list", None, command)]
            at = _now()
            for item in items or ():
                if isinstance(item, dict):
                    body = {"apiVersion": resource.api_version, "kind": resource.kind, **item}
                    facts.append(self._fact(body, at))
            token = str((page.get("metadata") or {}).get("continue") or "")
            if not token:
                facts.append(
                    Listed(
                        at=at,
                        vantage=self._vantage,
                        cluster=self.cluster,
                        wanted=kind,
                        namespace=namespace if resource.namespaced else None,
                        selector=labels,
                        field_selector=fields,
                        count=len(facts),
                    )
                )
                return facts

    def _ask(self, kind: str, path: Any, query: Sequence[tuple[str, str]]) -> tuple[Resource, Answer]:
        """GET with the kind's place found; a path that the server does not know is looked up once more.

        Raises Unserved and NoAnswer.
        """
        resource = self._discovery.resolve(kind)
        answer = self.api.get(path(resource), query)
        if answer.status == 404 and not _names_object(answer):
            other = self._discovery.again(kind)
            if other == resource:  # discovery lists it, the path does not answer: not the same as absent
                return resource, answer
            resource, answer = other, self.api.get(path(other), query)
        elif answer.status == 403 and resource.group not in BUILT_IN:
            # Authorisation comes before existence: a 403 about a kind that nobody installed is not a missing right.
            self._discovery.again(kind)
        return resource, answer

    # --- debug endpoints ---

    def ask(self, namespace: str, pod: str, port: int, path: str) -> Fact:
        """EndpointAnswer of an HTTP GET inside a pod: through port-forward, else the API server's pod proxy."""
        path = path.lstrip("/")
        about = f"{namespace}/{pod}:{port}/{path}"
        try:
            status, body = http_get(self.api, namespace, pod, port, f"/{path}")
        except Refused as refusal:
            if refusal.answer.status not in (400, 403, 404, 405, 500, 501, 502, 503):
                return self._no_endpoint(about, namespace, pod, port, path, refusal.answer)
            return self._through_proxy(about, namespace, pod, port, path, refusal.answer)
        except NoAnswer as failure:
            return self._blind("endpoint_answer", about, str(failure), None, self._forward(namespace, pod, port, path))
        if status >= 400:
            reason = f"the endpoint answered {status}"
            return self._blind("endpoint_answer", about, reason, None, None, status)
        return self._endpoint(pod, path, body)

    def _through_proxy(self, about: str, namespace: str, pod: str, port: int, path: str, first: Answer) -> Fact:
        target = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}:{port}/proxy/{path}"
        try:
            answer = self.api.request("GET", target, query=())
        except NoAnswer as failure:
            return self._blind("endpoint_answer", about, str(failure), None, self._forward(namespace, pod, port, path))
        if answer.ok:
            return self._endpoint(pod, path, answer.body)
        return self._no_endpoint(about, namespace, pod, port, path, first if answer.status == 403 else answer)

    def _no_endpoint(self, about: str, namespace: str, pod: str, port: int, path: str, answer: Answer) -> Blind:
        permission = f"get and create pods/portforward in {namespace}" if answer.status == 403 else None
        reason = self._unauthorised() if answer.status == 401 else answer.message
        command = self._forward(namespace, pod, port, path)
        return self._blind("endpoint_answer", about, reason, permission, command, answer.status)

    def _endpoint(self, pod: str, path: str, body: bytes) -> EndpointAnswer:
        import json

        text = body.decode("utf-8", "replace")
        try:
            value: Any = redact_object({"body": json.loads(text)})["body"]
        except (ValueError, RecursionError):
            value = redact_text(text)
        return EndpointAnswer(at=_now(), vantage=self._vantage, cluster=self.cluster, pod=pod, path=path, body=value)

    # --- words ---

    def _fact(self, body: dict[str, Any], at: datetime) -> KubeObject:
        return KubeObject(at=at, vantage=self._vantage, cluster=self.cluster, body=redact_object(_lean(body)))

    @property
    def _vantage(self) -> Vantage:
        return Vantage(cluster=self.cluster)

    def _unauthorised(self) -> str:
        return "the API server does not accept the credentials (401): expired, revoked or of another cluster"

    def _refusal(
        self,
        verb: str,
        kind: str,
        about: str,
        resource: Resource,
        namespace: str | None,
        answer: Answer,
        command: str,
    ) -> Blind:
        permission = None
        match answer.status:
            case 401:
                reason = self._unauthorised()
                command = f"kubectl auth whoami{self._context_flag()}"
            case 403:
                where = f" in {namespace}" if namespace and resource.namespaced else ""
                permission = f"{verb} {resource.short}{where}"
                reason = f"not allowed to {permission}"
            case 404:
                reason = "the path was not found, though the server's discovery lists the kind"
            case 429:
                reason = "the API server is overloaded (429) and stayed so"
            case status if 300 <= status < 400:
                reason = f"the API server's address redirects ({status}), as a login page does"
            case _:
                reason = answer.message
        return self._blind(kind, about, reason, permission, command, answer.status)

    def _blind(
        self,
        wanted: str,
        about: str,
        reason: str,
        permission: str | None,
        command: str | None,
        status: int | None = None,
    ) -> Blind:
        return Blind(
            at=_now(),
            vantage=self._vantage,
            wanted=wanted,
            about=about,
            reason=redact_text(one_line(reason)),
            cluster=self.cluster,
            permission=permission,
            command=command,
            status=status,
        )

    def _context_flag(self) -> str:
        return f" --context {shlex.quote(self.api.context)}"

    def _kubectl(
        self,
        verb: str,
        resource: str,
        namespace: str | None,
        name: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
    ) -> str:
        words = ["kubectl", verb, resource.lower(), *([name] if name else [])]
        words += ["-n", namespace] if namespace else ([] if name else ["--all-namespaces"])
        words += ["-l", labels] if labels else []
        words += ["--field-selector", fields] if fields else []
        return shlex.join([*words, "--context", self.api.context, "-o", "yaml"])

    def _forward(self, namespace: str, pod: str, port: int, path: str) -> str:
        forward = shlex.join(
            ["kubectl", "port-forward", "-n", namespace, f"pod/{pod}", str(port), "--context", self.api.context]
        )
        return f"{forward} & curl -s {shlex.quote(f'http://127.0.0.1:{port}/{path}')}"


def _now() -> datetime:
    return datetime.now(UTC)


def _object(answer: Answer) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _names_object(answer: Answer) -> bool:
    """True for the 404 about an object; false for the one about an unknown path (or of some other server)."""
    failure = answer.failure
    return failure.get("reason") == "NotFound" and bool((failure.get("details") or {}).get("name"))


def _lean(body: dict[str, Any]) -> dict[str, Any]:
    """Without the bookkeeping that doubles an object: managedFields and the copy that `kubectl apply` keeps."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return body
    metadata = {k: v for k, v in metadata.items() if k != "managedFields"}
    if isinstance(annotations := metadata.get("annotations"), dict) and LAST_APPLIED in annotations:
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != LAST_APPLIED}
    return {**body, "metadata": metadata}
