"""The vantage `ephemeral`: a debug container in the source pod itself, as restricted as the cluster can ask for.

An ephemeral container can never be removed from its pod, only ended. So it is tried with a dry run first, it ends by
itself when its standard input closes, and the account at the end says what became of it.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from mcdoctor.kube.access import Right, missing, review, whoami
from mcdoctor.kube.agent import IMAGE, NAME_PREFIX, RUN_VARIABLE, Agent, NoVantage, Opened, run_id
from mcdoctor.kube.errors import Answer, NoAnswer, one_line
from mcdoctor.kube.streams import ProcessStream, attach
from mcdoctor.kube.transport import Api, Refused
from mcdoctor.models.facts import Blind
from mcdoctor.models.redact import redact_text
from mcdoctor.models.vantage import Vantage
from mcdoctor.ports import Prober

Profile = Literal["restricted", "baseline", "general", "netadmin", "sysadmin", "raw"]
"""As `kubectl debug --profile`; `raw` is ours: root with NET_RAW and nothing else."""

NOBODY = 65532
START_TIMEOUT = 60.0
END_TIMEOUT = 5.0
STRATEGIC = "application/strategic-merge-patch+json"
CANNOT_START = frozenset(
    {
        "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
        "RegistryUnavailable", "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
        "PreStartHookError", "StartError",
    }
)  # fmt: skip
PROXIES = {"istio-proxy": 1337, "linkerd-proxy": 2102}
_WEBSOCKETS = ("pods/attach", "pods/exec", "pods/portforward")
RAW_LOST = "no raw sockets: ICMP answers are read from the kernel's error queue only, and no packet is crafted"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look from: a running pod of a cluster, and which proxy captures its traffic."""

    cluster: str
    namespace: str
    pod: str
    node: str | None = None
    captured: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ephemeral:
    """A container that would be accepted: tried by access reviews and a dry run, not created yet."""

    api: Api
    place: Place
    agent: Agent
    container: Mapping[str, Any]
    bypasses: bool = False
    limits: tuple[Blind, ...] = ()
    start_timeout: float = START_TIMEOUT

    @property
    def name(self) -> str:
        return str(self.container["name"])

    def creates(self) -> str:
        """What `open` will create, for the prompt."""
        p = self.place
        return (
            f"an ephemeral container {self.name} (image {self.container['image']}) in pod {p.namespace}/{p.pod}"
            f" of {p.cluster}; it ends with this run, its entry stays in the pod"
            " (another one only if its connection drops)"
        )

    def open(self) -> Opened:
        """Creates the container, waits until it runs, and starts the prober in it. Raises NoVantage.

        When it raises anything, also KeyboardInterrupt, the container has been told to end.
        """
        session = _Session(self)
        try:
            prober = session.start()
        except NoVantage as none:
            account = session.close()
            if account and none.blinds:
                last = none.blinds[-1]
                raise NoVantage(*none.blinds[:-1], replace(last, reason=f"{last.reason} ({account[0]})")) from None
            raise
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
    profile: Profile = "restricted",
    bypass: bool = False,
    target: str | None = None,
    run: str | None = None,
    start_timeout: float = START_TIMEOUT,
) -> Ephemeral:
    """Finds out whether a debug container would be let in, creating nothing. Raises NoVantage with all reasons.

    `bypass`: run as the user whose traffic the pod's proxy leaves alone. `profile="raw"` is tried first and given up
    for `restricted` where admission refuses it; `limits` then says what is lost. `target`: share the processes of
    that container.
    """
    rights = [
        Right("get", "pods", place.namespace, name=place.pod),
        Right("patch", "pods/ephemeralcontainers", place.namespace, name=place.pod),
        Right("get", "pods/attach", place.namespace, name=place.pod),  # a websocket is opened by a GET …
        Right("create", "pods/attach", place.namespace, name=place.pod),  # … and since 1.35 also needs this
    ]
    reviewed(api, place, "ephemeral", rights)
    pod = running_pod(api, place)
    uid = _bypass_uid(pod, place) if bypass else None
    name = NAME_PREFIX + (run or run_id())
    limits: list[Blind] = []
    refusals: list[str] = []
    for context in _contexts(profile, uid, pod):
        container: dict[str, Any] = {
            "name": name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": list(agent.command),
            "stdin": True,
            "stdinOnce": True,
            "env": [{"name": RUN_VARIABLE, "value": name.removeprefix(NAME_PREFIX)}],
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        if context:
            container["securityContext"] = context
        if target:
            container["targetContainerName"] = target
        answer = _patch(api, place, container, dry=True)
        if answer.ok or "does not support dry run" in answer.message:
            if profile == "raw" and context.get("runAsUser") != 0:
                why = one_line(refusals[0], 200) if refusals else "refused"
                limits.append(blind(place, "raw sockets", f"{RAW_LOST}; a container with NET_RAW was refused: {why}"))
            return Ephemeral(
                api=api,
                place=place,
                agent=agent,
                container=container,
                bypasses=uid is not None,
                limits=tuple(limits),
                start_timeout=start_timeout,
            )
        refusals.append(answer.message)
        if answer.status not in (400, 403, 422):
            break
    command = shlex.join(
        [
            *("kubectl", "debug", "-n", place.namespace, f"pod/{place.pod}", "-it"),
            *(f"--image={image}", "--profile=restricted", "--context", api.context),
        ]
    )
    raise NoVantage(
        blind(
            place,
            "an ephemeral container",
            f"the cluster would not let the container in: {refusals[-1]}",
            command=command,
            status=answer.status,
        )
    )


def _contexts(profile: Profile, uid: int | None, pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Security contexts to try, the wanted one first. Clusters differ in which user they accept."""
    restricted: dict[str, Any] = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if uid is not None:
        return [{**restricted, "runAsUser": uid, "runAsGroup": uid}]
    as_users = [{**restricted, "runAsUser": NOBODY}]
    if (own := _own_uid(pod)) not in (None, 0, NOBODY):
        as_users.append({**restricted, "runAsUser": own})
    as_users.append(restricted)  # the namespace may choose the user itself, as OpenShift's ranges do
    match profile:
        case "restricted":
            return as_users
        case "raw":
            raw = {
                "runAsUser": 0,
                "runAsNonRoot": False,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            return [raw, *as_users]
        case "netadmin":
            return [{"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}]
        case "sysadmin":
            return [{"runAsUser": 0, "privileged": True}]
        case "general":
            return [{"capabilities": {"add": ["SYS_PTRACE"]}}]
        case "baseline":
            return [{}]


def _own_uid(pod: Mapping[str, Any]) -> int | None:
    spec = pod.get("spec") or {}
    for holder in [*(spec.get("containers") or []), spec]:
        uid = (holder.get("securityContext") or {}).get("runAsUser")
        if isinstance(uid, int) and uid not in PROXIES.values():
            return uid
    return None


def _bypass_uid(pod: Mapping[str, Any], place: Place) -> int:
    """The user of the pod's own proxy, which its redirection leaves alone. Raises NoVantage where there is none."""
    spec = pod.get("spec") or {}
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        usual = PROXIES.get(str(container.get("name")))
        if usual is not None:
            uid = (container.get("securityContext") or {}).get("runAsUser")
            return uid if isinstance(uid, int) and uid > 0 else usual
    reason = "the pod has no sidecar whose user could bypass the capture"
    if place.captured == "ztunnel":
        reason = (
            "in ambient mode the node captures the pod's traffic whatever the user; no view bypasses it from inside"
        )
    raise NoVantage(blind(place, "a view that bypasses the proxy", reason))


class _Session:
    """One container from its creation to its end."""

    def __init__(self, wanted: Ephemeral) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self._asked = False
        self._created = False
        self._stream: ProcessStream | None = None
        self._prober: Prober | None = None
        self._account: tuple[str, ...] | None = None

    def start(self) -> Prober:
        w = self._wanted
        self._asked = True  # before it is so: an interrupted request may have arrived
        answer = _patch(w.api, w.place, w.container, dry=False)
        self._created = answer.ok
        if not answer.ok:
            self._asked = False
            raise NoVantage(blind(w.place, "an ephemeral container", answer.message, status=answer.status))
        self._wait_running()
        try:
            self._stream = attach(w.api, w.place.namespace, w.place.pod, w.name)
        except Refused as refusal:
            reason = f"attaching to the debug container was refused: {refusal.answer.message}"
            permission = f"get and create pods/attach in {w.place.namespace}" if refusal.answer.status == 403 else None
            raise NoVantage(blind(w.place, "attach", reason, permission=permission)) from None
        except NoAnswer as failure:
            raise NoVantage(blind(w.place, "attach", f"attaching to the debug container failed: {failure}")) from None
        vantage = Vantage(
            cluster=w.place.cluster,
            namespace=w.place.namespace,
            pod=w.place.pod,
            container=w.name,
            node=w.place.node,
            captured=None if w.bypasses else w.place.captured,
        )
        try:
            self._prober = w.agent.talk(self._stream, vantage)
        except Exception as error:  # whatever the client side raises, its text is the reason
            said = one_line(self._stream.stderr, 200)
            reason = f"the prober did not start in image {w.container['image']}: {one_line(str(error))}"
            raise NoVantage(blind(w.place, "prober", reason + (f": {said}" if said else ""))) from None
        return self._prober

    def _wait_running(self) -> None:
        w = self._wanted
        until = time.monotonic() + min(w.start_timeout, w.api.left())
        pause, seen = 0.05, "no status yet"
        while True:
            try:
                state = _state(w.api, w.place, w.name)
            except NoAnswer as failure:
                state, seen = None, str(failure)
            if state is not None:
                if "running" in state:
                    return
                if ended := state.get("terminated"):
                    said = one_line(str(ended.get("message") or ended.get("reason") or ""))
                    reason = f"the debug container ended at once (exit code {ended.get('exitCode')}): {said}"
                    raise NoVantage(blind(w.place, "an ephemeral container", reason))
                waiting = state.get("waiting") or {}
                seen = str(waiting.get("reason") or seen)
                if seen in CANNOT_START:
                    said = one_line(str(waiting.get("message") or ""), 200)
                    reason = f"the debug container cannot start: {seen}: {said}" + hint(seen, str(w.container["image"]))
                    raise NoVantage(blind(w.place, "an ephemeral container", reason))
            if time.monotonic() + pause > until:
                reason = f"the debug container did not run within {w.start_timeout:.0f} s: {seen}" + hint(
                    seen, str(w.container["image"])
                )
                raise NoVantage(blind(w.place, "an ephemeral container", reason))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)

    def close(self) -> tuple[str, ...]:
        with self._lock:
            if self._account is None:
                self._account = self._end()
            return self._account

    def _end(self) -> tuple[str, ...]:
        if not self._asked:
            return ()
        w = self._wanted
        if self._prober is not None:
            self._prober.close()
        if self._stream is not None:
            self._stream.end_input()
            self._stream.wait(1.0)
            self._stream.close()
        return (account(w.api, w.place, w.name, end_it=self._stream is None, certain=self._created),)


def account(
    api: Api, place: Place, name: str, *, end_it: bool, certain: bool = True, timeout: float = END_TIMEOUT
) -> str:
    """Waits for an ephemeral container's end and says what became of it. `end_it`: close its stdin first, once.

    `certain`: false when the request that creates it was interrupted and may still arrive.
    """
    where = f"{name} in pod {place.namespace}/{place.pod}"
    command = shlex.join(["mcdoctor", "cleanup", "-n", place.namespace, "--context", api.context])
    until = time.monotonic() + timeout
    seen = "unknown"
    while True:
        try:
            state = _state(api, place, name, last_words=max(0.5, until - time.monotonic()))
        except NoAnswer as failure:
            return f"could not see what became of the ephemeral container {where} ({failure}); look with: {command}"
        except NoVantage:
            return f"the pod {place.namespace}/{place.pod} is gone, and the ephemeral container {name} with it"
        if state is None:
            if certain or time.monotonic() > until - timeout + 1.0:
                return f"the ephemeral container {where} was not created"
            time.sleep(0.1)
            continue
        if ended := state.get("terminated"):
            code = ended.get("exitCode")
            return f"ephemeral containers cannot be removed: {where} has ended (exit code {code})"
        seen = next(iter(state), "not started")
        if "running" in state and end_it:
            end_it = False
            try:
                attach(api, place.namespace, place.pod, name).close()
            except (Refused, NoAnswer) as failure:
                return f"the ephemeral container {where} still runs and could not be ended ({failure}): {command}"
        if "waiting" in state and str(state["waiting"].get("reason")) in CANNOT_START:
            return f"ephemeral containers cannot be removed: {where} never started ({state['waiting']['reason']})"
        if time.monotonic() > until:
            return f"the ephemeral container {where} is still {seen}; end it with: {command}"
        time.sleep(0.1)


def _state(api: Api, place: Place, name: str, last_words: float | None = None) -> dict[str, Any] | None:
    """The container's state; {} before the kubelet told one, None when the pod has no such container.

    Raises NoVantage when the pod is gone, NoAnswer when it cannot be read.
    """
    path = _path(place)
    if last_words is None:
        answer = api.get(path, timeout=5.0)
    else:
        answer = api.request("GET", path, timeout=last_words, last_words=True)
    if answer.status == 404:
        raise NoVantage(blind(place, "the source pod", f"pod {place.namespace}/{place.pod} is gone", status=404))
    if not answer.ok:
        raise NoAnswer(answer.message)
    try:
        pod = answer.json()
        statuses = (pod.get("status") or {}).get("ephemeralContainerStatuses") or []
        for status in statuses:
            if status.get("name") == name:
                return dict(status.get("state") or {})
        entries = (pod.get("spec") or {}).get("ephemeralContainers") or []
        return {} if any(e.get("name") == name for e in entries) else None
    except (ValueError, AttributeError):
        raise NoAnswer("the API server's answer is not a pod") from None


def reviewed(api: Api, place: Place, kind: str, rights: Sequence[Right]) -> None:
    """Raises NoVantage with every right that is certainly missing."""
    lacking = [
        right
        for right in missing(review(api, rights))
        if not (right.verb == "create" and right.resource in _WEBSOCKETS and _tolerates_get_only(api))
    ]
    if lacking:
        command = _grant(api, place, kind)
        raise NoVantage(*(_lacks(place, right, command) for right in lacking))


def running_pod(api: Api, place: Place) -> Mapping[str, Any]:
    """The source pod as it is now. Raises NoVantage when it is gone, cannot be read, or does not run."""
    try:
        answer = api.get(_path(place))
        pod = answer.json() if answer.ok else None
    except NoAnswer as failure:
        raise NoVantage(blind(place, "the source pod", str(failure))) from None
    except ValueError:
        pod = None
    if answer.status == 404:
        raise NoVantage(blind(place, "the source pod", f"pod {place.namespace}/{place.pod} is gone", status=404))
    if not isinstance(pod, Mapping):
        raise NoVantage(blind(place, "the source pod", answer.message, status=answer.status))
    phase = (pod.get("status") or {}).get("phase")
    if phase != "Running":
        reason = f"pod {place.namespace}/{place.pod} is {phase or 'in no phase'}; a debug container needs a running pod"
        raise NoVantage(blind(place, "an ephemeral container", reason))
    return pod


def _patch(api: Api, place: Place, container: Mapping[str, Any], *, dry: bool) -> Answer:
    query = [("fieldManager", "mcdoctor"), *([("dryRun", "All")] if dry else [])]
    body = {"spec": {"ephemeralContainers": [container]}}
    try:
        for _ in range(3):
            answer = api.request(
                "PATCH", f"{_path(place)}/ephemeralcontainers", query=query, body=body, content_type=STRATEGIC
            )
            if answer.status != 409:  # somebody else changed the pod at the same moment
                break
    except NoAnswer as failure:
        raise NoVantage(blind(place, "an ephemeral container", str(failure))) from None
    return answer


def _path(place: Place) -> str:
    return f"/api/v1/namespaces/{quote(place.namespace, safe='')}/pods/{quote(place.pod, safe='')}"


def _tolerates_get_only(api: Api) -> bool:
    """Before 1.35 an API server lets a websocket through with `get` alone."""
    try:
        version = api.get("/version").json()
        return int(str(version["minor"]).rstrip("+")) < 35 and int(version["major"]) == 1
    except (NoAnswer, ValueError, KeyError, TypeError):
        return False


def hint(seen: str, image: str) -> str:
    if seen in ("CreateContainerConfigError", "RunContainerError", "CreateContainerError", "StartError"):
        return "; an image with python3 and a numeric non-root user is needed: choose one with --image"
    return f"; choose an image that the node can pull instead of {image} with --image"


def _grant(api: Api, place: Place, kind: str) -> str:
    """What someone who may grant rights runs."""
    words = ["mcdoctor", "rbac", "--for", "probe", "--probe", kind, "-n", place.namespace]
    if (user := whoami(api)) is not None:
        account = user.removeprefix("system:serviceaccount:")
        words += ["--user", user] if account == user else ["--serviceaccount", account]
    return f"{shlex.join(words)} | {shlex.join(['kubectl', 'apply', '--context', api.context, '-f', '-'])}"


def _lacks(place: Place, right: Right, command: str) -> Blind:
    about = "a vantage to probe from"
    return blind(place, about, f"not allowed to {right}", permission=str(right), command=command, status=403)


def blind(
    place: Place,
    about: str,
    reason: str,
    *,
    permission: str | None = None,
    command: str | None = None,
    status: int | None = None,
) -> Blind:
    return Blind(
        at=datetime.now(UTC),
        vantage=Vantage(cluster=place.cluster),
        wanted="prober",
        about=f"{about} in pod {place.namespace}/{place.pod}",
        reason=redact_text(one_line(reason, 700)),
        cluster=place.cluster,
        permission=permission,
        command=command,
        status=status,
    )
