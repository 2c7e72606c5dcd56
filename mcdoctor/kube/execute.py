"""The vantage `exec`: the prober as a process in a container that is there already, where it has python3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcdoctor.kube.access import Right
from mcdoctor.kube.agent import Agent, NoVantage, Opened
from mcdoctor.kube.ephemeral import PROXIES, Place, blind, reviewed, running_pod
from mcdoctor.kube.errors import NoAnswer, one_line
from mcdoctor.kube.streams import ProcessStream
from mcdoctor.kube.streams import execute as start
from mcdoctor.kube.transport import Api, Refused
from mcdoctor.models.vantage import Vantage
from mcdoctor.ports import Prober


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Containers in which a process may be started, in the order in which they are tried."""

    api: Api
    place: Place
    agent: Agent
    containers: tuple[str, ...]

    def creates(self) -> str:
        p = self.place
        return f"a process in container {' or '.join(self.containers)} of pod {p.namespace}/{p.pod} of {p.cluster}"

    def open(self) -> Opened:
        """Starts the prober in the first container that has what it needs. Raises NoVantage."""
        reasons = []
        for container in self.containers:
            try:
                stream = start(self.api, self.place.namespace, self.place.pod, container, self.agent.command)
            except Refused as refusal:
                reasons.append(f"{container}: {refusal.answer.message}")
                continue
            except NoAnswer as failure:
                reasons.append(f"{container}: {failure}")
                continue
            try:
                return _opened(stream, self.agent.talk(stream, self._vantage(container)))
            except Exception as error:  # whatever the client side raises, its text is the reason
                stream.wait(0.5)
                reasons.append(f"{container}: {_why(stream, error)}")
                stream.close()
            except BaseException:
                stream.close()
                raise
        reason = f"no container of the pod can run the prober: {'; '.join(reasons)}; it needs python3, 3.11 or newer"
        raise NoVantage(blind(self.place, "a process", reason))

    def _vantage(self, container: str) -> Vantage:
        p = self.place
        captured = None if container in PROXIES else p.captured  # a proxy's own user is not captured
        return Vantage(
            cluster=p.cluster, namespace=p.namespace, pod=p.pod, container=container, node=p.node, captured=captured
        )


def prepare(api: Api, place: Place, agent: Agent, *, container: str | None = None) -> Process:
    """Finds the containers to try, the application's own first; starts nothing. Raises NoVantage."""
    get, create = (Right(verb, "pods/exec", place.namespace, name=place.pod) for verb in ("get", "create"))
    reviewed(api, place, "exec", [Right("get", "pods", place.namespace, name=place.pod), get, create])
    pod = running_pod(api, place)
    names = [container] if container else _containers(pod)
    return Process(api=api, place=place, agent=agent, containers=tuple(names))


def _containers(pod: Mapping[str, Any]) -> list[str]:
    names = [str(c.get("name")) for c in (pod.get("spec") or {}).get("containers") or []]
    return sorted(names, key=lambda name: name in PROXIES)


def _opened(stream: ProcessStream, prober: Prober) -> Opened:
    def close() -> tuple[str, ...]:
        prober.close()
        stream.end_input()
        stream.wait(1.0)
        stream.close()
        return ()

    return Opened(prober, close)


def _why(stream: ProcessStream, error: Exception) -> str:
    if "executable file not found" in (stream.ending or "") or stream.exit_code in (126, 127):
        return "no python3"
    return one_line(stream.stderr.strip().rpartition("\n")[2] or stream.ending or str(error), 200)
