"""Which place to probe from, decided before anything is created: what was asked for, else the best that is allowed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mcdoctor.kube import ephemeral, execute, pod
from mcdoctor.kube.agent import IMAGE, Agent, NoVantage, Opened
from mcdoctor.kube.ephemeral import Place, Profile
from mcdoctor.kube.lasting import once_back
from mcdoctor.kube.transport import Api
from mcdoctor.models.facts import Blind
from mcdoctor.ports import Prober

Wanted = Literal["auto", "ephemeral", "pod", "exec", "local", "none"]
Chosen = Literal["ephemeral", "pod", "exec", "local", "none"]
Prepared = ephemeral.Ephemeral | pod.OwnPod | execute.Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The choice. `creates`: sentences for the prompt, empty when nothing is created. `limits`: why not better.

    `again`: opens another prober of the same kind, for when the connection to the first dropped; raises NoVantage.
    """

    kind: Chosen
    creates: tuple[str, ...] = ()
    limits: tuple[Blind, ...] = ()
    opener: Callable[[], Opened] | None = None
    again: Callable[[], Opened] | None = None

    def open(self) -> Opened:
        """Starts the prober. Raises NoVantage, with the plan's limits among the reasons; for `none` always."""
        if self.opener is None:
            raise NoVantage(*self.limits)
        try:
            opened = self.opener()
        except NoVantage as failure:
            raise NoVantage(*self.limits, *failure.blinds) from None
        opened.limits = (*self.limits, *opened.limits)
        return opened


def choose(
    wanted: Wanted,
    api: Api,
    place: Place,
    agent: Agent,
    *,
    image: str = IMAGE,
    profile: Profile = "restricted",
    bypass: bool = False,
    target: str | None = None,
    labels: Mapping[str, str] | None = None,
    run: str | None = None,
    local: Callable[[], Prober] | None = None,
    start_timeout: float = ephemeral.START_TIMEOUT,
) -> Plan:
    """The plan for one vantage; reads and dry runs only, never raises.

    `auto` is `local` inside the source pod itself, else `ephemeral` where rights and admission allow it, else `none`
    with the reasons: `exec` and `pod` act in ways that are only done when asked for. `labels`: for the own pod; the
    source pod's unless given. `local`: makes a prober of this very process.
    """
    if wanted == "none":
        return Plan(kind="none")
    if wanted == "local" or (wanted == "auto" and local is not None and inside(place)):
        if local is None:
            return Plan(kind="none", limits=(_no_local(place),))
        return Plan(kind="local", opener=lambda: _opened(local()))
    kind: Chosen
    prepare: Callable[[], Prepared]
    match wanted:
        case "auto" | "ephemeral":
            kind = "ephemeral"
            prepare = partial(
                ephemeral.prepare,
                api,
                place,
                agent,
                image=image,
                profile=profile,
                bypass=bypass,
                target=target,
                run=run,
                start_timeout=start_timeout,
            )
        case "pod":
            kind = "pod"
            prepare = partial(
                pod.prepare, api, place, agent, image=image, labels=labels, run=run, start_timeout=start_timeout
            )
        case "exec":
            kind = "exec"
            prepare = partial(execute.prepare, api, place, agent, container=target)
    try:
        first = prepare()
    except NoVantage as failure:
        return Plan(kind="none", limits=failure.blinds)
    creates = first.creates()
    return Plan(
        kind=kind,
        creates=creates if isinstance(creates, tuple) else (creates,),
        opener=first.open,
        again=None if run else lambda: once_back(api, place, lambda: prepare().open()),  # a name given is taken by now
    )


def inside(place: Place, environ: Mapping[str, str] = os.environ) -> bool:
    """True when this process runs in that very pod."""
    return "KUBERNETES_SERVICE_HOST" in environ and environ.get("HOSTNAME", socket.gethostname()) == place.pod


def _opened(prober: Prober) -> Opened:
    def close() -> tuple[str, ...]:
        prober.close()
        return ()

    return Opened(prober, close)


def _no_local(place: Place) -> Blind:
    return ephemeral.blind(place, "a local prober", "nothing can be probed from this machine")
