"""The vantage `pod`: a pod of our own, beside the source pod: same namespace, node, service account and DNS settings.

It is outside the source pod's proxy, and it must disturb nothing: no controller adopts it, since its controller is our
run object; no Service, headless or not, counts it as an endpoint, since it carries no set of labels that one selects;
and it is never ready, so a Service created meanwhile would not send traffic either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from mcdoctor.kube.access import Right
from mcdoctor.kube.agent import IMAGE, MANAGED_BY, NAME_PREFIX, RUN_LABEL, Agent, NoVantage, Opened, run_id
from mcdoctor.kube.ephemeral import (
    CANNOT_START,
    END_TIMEOUT,
    NOBODY,
    START_TIMEOUT,
    Place,
    blind,
    hint,
    reviewed,
    running_pod,
)
from mcdoctor.kube.errors import Answer, NoAnswer, one_line
from mcdoctor.kube.reader import ApiReader
from mcdoctor.kube.streams import ProcessStream, attach
from mcdoctor.kube.transport import Api, Refused
from mcdoctor.models.facts import Blind, Fact, KubeObject, Listed
from mcdoctor.models.vantage import Vantage
from mcdoctor.ports import Prober

LIFETIME = 900
CONTAINER = "prober"
_CONTROLLERS = frozenset({"pod-template-hash", "controller-revision-hash", "controller-uid", "job-name"})
_FOREIGN = ("istio.io/", "linkerd.io/", "statefulset.kubernetes.io/", "apps.kubernetes.io/", "batch.kubernetes.io/")


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels for the own pod; `dropped` could not be carried without becoming an endpoint.

    `needed` are those among the dropped that a policy selects by: from our pod its effect cannot be seen.
    """

    carried: Mapping[str, str]
    dropped: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


def safe_labels(
    wanted: Mapping[str, str], selectors: Iterable[Mapping[str, str]], policy_keys: Iterable[str]
) -> Labels:
    """The wanted labels, less those that complete the selector of a Service (or of something else that makes
    endpoints of pods). Keys that no policy looks at are given up first. Pure."""
    carried = {
        key: value
        for key, value in wanted.items()
        if key not in _CONTROLLERS and not any(f in key for f in _FOREIGN) and key not in (MANAGED_BY, RUN_LABEL)
    }
    asked = frozenset(policy_keys)
    dropped: list[str] = []
    for selector in selectors:
        if selector and all(carried.get(key) == value for key, value in selector.items()):
            key = min(selector, key=lambda k: (k in asked, k))
            del carried[key]
            dropped.append(key)
    return Labels(carried, tuple(dropped), tuple(k for k in dropped if k in asked))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPod:
    """A pod that would be accepted: tried by access reviews and a dry run, not created yet."""

    api: Api
    place: Place
    agent: Agent
    run: str
    manifest: Mapping[str, Any]
    limits: tuple[Blind, ...] = ()
    start_timeout: float = START_TIMEOUT

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    def creates(self) -> tuple[str, ...]:
        """What `open` will create, for the prompt."""
        p, spec = self.place, self.manifest["spec"]
        image = spec["containers"][0]["image"]
        return (
            f"a ConfigMap {self.name} in {p.namespace} of {p.cluster}, which owns what this run creates",
            f"a pod {self.name} (image {image}) in {p.namespace} of {p.cluster} on node {spec.get('nodeName', 'any')};"
            " both are deleted when this run ends (another pair only if the connection drops)",
        )

    def open(self) -> Opened:
        """Creates the pod, waits until it runs, and starts the prober in it. Raises NoVantage.

        When it raises anything, also KeyboardInterrupt, what was created is deleted.
        """
        session = _Session(self)
        try:
            prober = session.start()
        except BaseException:
            session.close()
            raise
        return Opened(prober, session.close, self.limits)


def prepare(
    api: Api,
    place: Place,
    agent: Agent,
    *,
    image: str = IMAGE,
    labels: Mapping[str, str] | None = None,
    run: str | None = None,
    start_timeout: float = START_TIMEOUT,
) -> OwnPod:
    """Finds out whether an own pod would be let in, creating nothing. Raises NoVantage with all reasons."""
    namespace = place.namespace
    rights = [Right(verb, "pods", namespace) for verb in ("get", "create", "delete")]
    rights += [Right(verb, "pods/attach", namespace) for verb in ("get", "create")]
    rights += [Right(verb, "configmaps", namespace) for verb in ("create", "delete")]
    reviewed(api, place, "pod", rights)
    source = running_pod(api, place)
    wanted = labels if labels is not None else (source.get("metadata") or {}).get("labels") or {}
    safe, limits = _labels(ApiReader(api, place.cluster), place, wanted)
    run = run or run_id()
    manifest = _manifest(place, agent, image, source, safe.carried, run)
    try:
        answer = api.request("POST", f"/api/v1/namespaces/{quote(namespace, safe='')}/pods", query=_DRY, body=manifest)
    except NoAnswer as failure:
        raise NoVantage(blind(place, "an own pod", str(failure))) from None
    if not answer.ok and "does not support dry run" not in answer.message:
        reason = f"the cluster would not let the pod in: {answer.message}"
        raise NoVantage(blind(place, "an own pod", reason, status=answer.status))
    return OwnPod(
        api=api,
        place=place,
        agent=agent,
        run=run,
        manifest=manifest,
        limits=tuple(limits),
        start_timeout=start_timeout,
    )


_DRY = [("dryRun", "All"), ("fieldManager", "mcdoctor")]
_REAL = [("fieldManager", "mcdoctor")]


def _labels(reader: ApiReader, place: Place, wanted: Mapping[str, str]) -> tuple[Labels, list[Blind]]:
    """The labels that can be carried, from all that makes endpoints of pods in the namespace."""
    services = reader.list("Service", place.namespace)
    entries = reader.list("ServiceEntry.networking.istio.io", place.namespace)
    unseen = [f for f in (*services, *entries) if isinstance(f, Blind)]
    if unseen:
        why = f"the own pod carries no label of the source pod: what selects pods cannot be seen ({unseen[0].reason})"
        return Labels({}), [blind(place, "policies by label", why, permission=unseen[0].permission)]
    selectors = [_mapping(o.spec.get("selector")) for o in _objects(services)]
    selectors += [_mapping(_mapping(o.spec.get("workloadSelector")).get("labels")) for o in _objects(entries)]
    policies = reader.list("NetworkPolicy.networking.k8s.io", place.namespace)
    keys = {key for o in _objects(policies) for key in _selector_keys(o.spec)}
    if not any(isinstance(f, Listed) for f in policies):
        keys |= set(wanted)  # unknown: every label may matter
    labels = safe_labels(wanted, selectors, keys)
    if not labels.needed:
        return labels, []
    names = ", ".join(labels.needed)
    why = f"the own pod cannot carry the label {names}, by which policies select: a Service would make it an endpoint"
    return labels, [blind(place, "policies by label", why)]


def _objects(facts: Sequence[Fact]) -> list[KubeObject]:
    return [f for f in facts if isinstance(f, KubeObject)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _selector_keys(value: Any) -> Iterable[str]:
    """Label keys of every podSelector inside."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "podSelector" and isinstance(inner, Mapping):
                yield from _mapping(inner.get("matchLabels"))
                yield from (str(e.get("key")) for e in inner.get("matchExpressions") or [] if isinstance(e, Mapping))
            else:
                yield from _selector_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _selector_keys(inner)


def _manifest(
    place: Place, agent: Agent, image: str, source: Mapping[str, Any], labels: Mapping[str, str], run: str
) -> dict[str, Any]:
    spec = _mapping(source.get("spec"))
    same = (
        "serviceAccountName",
        "dnsPolicy",
        "dnsConfig",
        "hostAliases",
        "imagePullSecrets",
        "nodeName",
        "schedulerName",
    )
    context = {
        "runAsNonRoot": True,
        "runAsUser": NOBODY,
        "runAsGroup": NOBODY,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{NAME_PREFIX}run-{run}",
            "namespace": place.namespace,
            "labels": {**labels, **_outside(), MANAGED_BY: "mcdoctor", RUN_LABEL: run},
            "annotations": {"linkerd.io/inject": "disabled"},
        },
        "spec": {
            **{key: spec[key] for key in same if key in spec},
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFETIME,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "readinessGates": [{"conditionType": "mcdoctor.dev/never-an-endpoint"}],
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(agent.command),
                    "stdin": True,
                    "stdinOnce": True,
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": context,
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "64Mi"},
                        "limits": {"cpu": "500m", "memory": "256Mi"},
                    },
                }
            ],
        },
    }


def _outside() -> dict[str, str]:
    """Labels that keep a mesh from taking the pod in: its view is the one outside the proxy."""
    return {"sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none"}


class _Session:
    """The run object and the pod from their creation to their deletion."""

    def __init__(self, wanted: OwnPod) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self._asked: list[str] = []
        self._stream: ProcessStream | None = None
        self._prober: Prober | None = None
        self._account: tuple[str, ...] | None = None

    def start(self) -> Prober:
        w = self._wanted
        owner = self._create("configmaps", _run_object(w))
        manifest = {
            **w.manifest,
            "metadata": {
                **w.manifest["metadata"],
                "ownerReferences": [
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "name": w.name,
                        "uid": str(owner["metadata"]["uid"]),
                        "controller": True,
                        "blockOwnerDeletion": False,
                    }
                ],
            },
        }
        self._create("pods", manifest)
        node = self._wait_running()
        try:
            self._stream = attach(w.api, w.place.namespace, w.name, CONTAINER)
        except Refused as refusal:
            raise NoVantage(blind(w.place, "attach", f"attaching was refused: {refusal.answer.message}")) from None
        except NoAnswer as failure:
            raise NoVantage(blind(w.place, "attach", f"attaching failed: {failure}")) from None
        vantage = Vantage(
            cluster=w.place.cluster, namespace=w.place.namespace, pod=w.name, container=CONTAINER, node=node
        )
        try:
            self._prober = w.agent.talk(self._stream, vantage)
        except Exception as error:  # whatever the client side raises, its text is the reason
            said = one_line(self._stream.stderr, 200)
            reason = f"the prober did not start: {one_line(str(error))}" + (f": {said}" if said else "")
            raise NoVantage(blind(w.place, "prober", reason)) from None
        return self._prober

    def _create(self, resource: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        w = self._wanted
        self._asked.append(resource)  # before it is so: an interrupted request may have arrived
        try:
            answer = w.api.request("POST", _path(w.place, resource), query=_REAL, body=body)
            created = answer.json() if answer.ok else None
        except NoAnswer as failure:
            raise NoVantage(blind(w.place, "an own pod", str(failure))) from None
        except ValueError:
            created = None
        if not answer.ok:
            self._asked.remove(resource)
        if not isinstance(created, Mapping):
            raise NoVantage(blind(w.place, "an own pod", answer.message, status=answer.status))
        return created

    def _wait_running(self) -> str | None:
        w = self._wanted
        until = time.monotonic() + min(w.start_timeout, w.api.left())
        seen = "no status yet"
        while True:
            try:
                answer = w.api.get(_path(w.place, "pods", w.name), timeout=5.0)
                pod = answer.json() if answer.ok else {}
            except (NoAnswer, ValueError) as failure:
                pod, seen = {}, str(failure)
            status = _mapping(pod.get("status"))
            if status.get("phase") == "Running":
                return str((pod.get("spec") or {}).get("nodeName") or "") or None
            problem = one_line(str(status.get("message") or status.get("reason") or ""), 200)
            for container in status.get("containerStatuses") or []:
                waiting = (container.get("state") or {}).get("waiting") or {}
                seen = str(waiting.get("reason") or seen)
                problem = one_line(str(waiting.get("message") or problem), 200)
            image = str(w.manifest["spec"]["containers"][0]["image"])
            if seen in CANNOT_START or status.get("phase") in ("Failed", "Succeeded"):
                reason = f"the own pod cannot start: {seen}: {problem}{hint(seen, image)}"
                raise NoVantage(blind(w.place, "an own pod", reason))
            if time.monotonic() > until:
                reason = f"the own pod did not run within {w.start_timeout:.0f} s: {seen} {problem}{hint(seen, image)}"
                raise NoVantage(blind(w.place, "an own pod", reason))
            time.sleep(0.2)

    def close(self) -> tuple[str, ...]:
        with self._lock:
            if self._account is None:
                self._account = self._end()
            return self._account

    def _end(self) -> tuple[str, ...]:
        w = self._wanted
        if self._prober is not None:
            self._prober.close()
        if self._stream is not None:
            self._stream.end_input()
            self._stream.close()
        lines = []
        for resource in reversed(self._asked):
            gone = delete(w.api, w.place.namespace, resource, w.name)
            what = f"{resource.removesuffix('s')} {w.place.namespace}/{w.name}"
            lines.append(f"deleted {what}" if gone is None else f"could not delete {what}: {gone}")
        return tuple(lines)


def delete(api: Api, namespace: str, resource: str, name: str, timeout: float = END_TIMEOUT) -> str | None:
    """Deletes one object and waits until it is gone; None then (also when there was none), else why not."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{resource}/{quote(name, safe='')}"
    until = time.monotonic() + timeout
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "gracePeriodSeconds": 1}
    try:
        answer = api.request("DELETE", path, body=body, timeout=timeout, last_words=True)
        while answer.ok:
            answer = api.request("GET", path, timeout=max(0.5, until - time.monotonic()), last_words=True)
            if answer.ok and time.monotonic() > until:
                return "it is still terminating"
            if answer.ok:
                time.sleep(0.1)
    except NoAnswer as failure:
        return str(failure)
    return None if answer.status == 404 else _not_gone(answer)


def _not_gone(answer: Answer) -> str | None:
    # without the right to look, the accepted deletion has to do
    return None if answer.status == 403 and "cannot get" in answer.message else answer.message


def _run_object(wanted: OwnPod) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": wanted.name,
            "namespace": wanted.place.namespace,
            "labels": {MANAGED_BY: "mcdoctor", RUN_LABEL: wanted.run},
        },
        "data": {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "purpose": "owns what one run of mcdoctor created; deleting it deletes them",
        },
    }


def _path(place: Place, resource: str, name: str | None = None) -> str:
    path = f"/api/v1/namespaces/{quote(place.namespace, safe='')}/{resource}"
    return path if name is None else f"{path}/{quote(name, safe='')}"
