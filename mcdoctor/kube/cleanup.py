"""What runs of mcdoctor left behind: found by label and by name, ended or deleted, and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from mcdoctor.kube.agent import MANAGED_BY, NAME_PREFIX, RUN_LABEL, RUN_VARIABLE
from mcdoctor.kube.ephemeral import Place, account
from mcdoctor.kube.errors import NoAnswer, one_line
from mcdoctor.kube.pod import delete
from mcdoctor.kube.transport import Api

SELECTOR = f"{MANAGED_BY}=mcdoctor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something of ours in a cluster. `pod`: of an ephemeral container. `state`: running, ended, waiting, …"""

    kind: Literal["pod", "configmap", "ephemeral container"]
    namespace: str
    name: str
    run: str = ""
    created: str = ""
    state: str = ""
    pod: str = ""

    def __str__(self) -> str:
        where = f"{self.name} in pod {self.namespace}/{self.pod}" if self.pod else f"{self.namespace}/{self.name}"
        details = ", ".join(d for d in (self.state, f"since {self.created}" if self.created else "") if d)
        return f"{self.kind} {where}" + (f" ({details})" if details else "")

    @property
    def can_go(self) -> bool:
        """False for an ephemeral container that has ended: its entry stays as long as its pod."""
        return not (self.pod and self.state.startswith(("ended", "never")))


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and what could not be looked at."""

    leftovers: tuple[Leftover, ...]
    unseen: tuple[str, ...] = ()


def find(api: Api, namespace: str | None = None, run: str | None = None) -> Found:
    """Leftovers of one namespace or, for None, of all; of one run or of all. Never raises."""
    found: list[Leftover] = []
    unseen: list[str] = []
    pods, why = _items(api, namespace, "pods")
    if why:
        unseen.append(f"pods: {why}")
    for pod in pods:
        found += _of_pod(pod)
    owned, why = _items(api, namespace, "configmaps", SELECTOR)
    if why:
        unseen.append(f"configmaps: {why}")
    found += [_owned("configmap", o) for o in owned]
    return Found(tuple(one for one in found if run is None or one.run == run), tuple(unseen))


def end(api: Api, cluster: str, leftover: Leftover) -> str:
    """Deletes or ends one leftover; a line on what became of it. Never raises."""
    if leftover.kind == "ephemeral container":
        place = Place(cluster, leftover.namespace, leftover.pod)
        return account(api, place, leftover.name, end_it=leftover.state == "running")
    why = delete(api, leftover.namespace, f"{leftover.kind}s", leftover.name)
    what = f"{leftover.kind} {leftover.namespace}/{leftover.name}"
    return f"deleted {what}" if why is None else f"could not delete {what}: {why}"


def _of_pod(pod: Mapping[str, Any]) -> list[Leftover]:
    metadata, spec, status = (_part(pod, key) for key in ("metadata", "spec", "status"))
    found = []
    if _part(metadata, "labels").get(MANAGED_BY) == "mcdoctor":
        found.append(_owned("pod", pod))
    states = {s.get("name"): s.get("state") or {} for s in status.get("ephemeralContainerStatuses") or []}
    for container in spec.get("ephemeralContainers") or []:
        variables = {v.get("name"): v.get("value") for v in container.get("env") or []}
        name = str(container.get("name"))
        if name.startswith(NAME_PREFIX) and RUN_VARIABLE in variables:
            state = states.get(name) or {}
            found.append(
                Leftover(
                    kind="ephemeral container",
                    namespace=str(metadata.get("namespace")),
                    name=name,
                    run=str(variables[RUN_VARIABLE]),
                    created=str(next((d.get("startedAt") for d in state.values() if d.get("startedAt")), "")),
                    state=_word(state),
                    pod=str(metadata.get("name")),
                )
            )
    return found


def _word(state: Mapping[str, Any]) -> str:
    if "running" in state:
        return "running"
    if ended := state.get("terminated"):
        return f"ended with exit code {ended.get('exitCode')}"
    if waiting := state.get("waiting"):
        return f"never started: {one_line(str(waiting.get('reason') or 'waiting'), 60)}"
    return "not started"


def _owned(kind: Literal["pod", "configmap"], body: Mapping[str, Any]) -> Leftover:
    metadata = _part(body, "metadata")
    return Leftover(
        kind=kind,
        namespace=str(metadata.get("namespace")),
        name=str(metadata.get("name")),
        run=str(_part(metadata, "labels").get(RUN_LABEL, "")),
        created=str(metadata.get("creationTimestamp") or ""),
        state=str(_part(body, "status").get("phase") or ""),
    )


def _part(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def _items(
    api: Api, namespace: str | None, resource: str, selector: str | None = None
) -> tuple[list[Mapping[str, Any]], str | None]:
    """All pages of a list, and why it could not be read to its end."""
    where = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    items: list[Mapping[str, Any]] = []
    token = ""
    while True:
        query = [("limit", "500"), *([("labelSelector", selector)] if selector else [])]
        query += [("continue", token)] if token else []
        try:
            answer = api.get(f"/api/v1{where}/{resource}", query)
            page = answer.json() if answer.ok else None
        except NoAnswer as failure:
            return items, str(failure)
        except ValueError:
            page = None
        if not isinstance(page, Mapping):
            return items, answer.message
        items += [i for i in page.get("items") or [] if isinstance(i, Mapping)]
        token = str(_part(page, "metadata").get("continue") or "")
        if not token:
            return items, None
