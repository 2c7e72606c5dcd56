"""What travels: the prober as data, so that vantages need not know how it is built. Joined in `cli/wiring.py`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mcdoctor.kube.streams import ProcessStream
from mcdoctor.models.facts import Blind
from mcdoctor.models.vantage import Vantage
from mcdoctor.ports import Prober

IMAGE = "python:3-slim"
NAME_PREFIX = "mcdoctor-"
MANAGED_BY = "app.kubernetes.io/managed-by"
RUN_LABEL = "mcdoctor.dev/run"
RUN_VARIABLE = "MCDOCTOR_RUN"


class Talk(Protocol):
    """Makes a prober of a process that already runs the agent's command: sends it the program, speaks its protocol.

    Raises any Exception, with a line for people, when the process does not answer as an agent does.
    """

    def __call__(self, stream: ProcessStream, vantage: Vantage) -> Prober: ...


@dataclass(frozen=True, slots=True)
class Agent:
    """`command`: what the container runs; it takes the program from stdin. `talk`: the client side."""

    command: tuple[str, ...]
    talk: Talk


@dataclass(slots=True)
class Opened:
    """A prober and how to end it.

    `close()` may be called from anywhere, any number of times, also after an interrupt; it ends the prober, removes
    what was created, waits a few seconds for that, and returns lines for the user: what is left and why.
    """

    prober: Prober
    close: Callable[[], tuple[str, ...]]
    limits: tuple[Blind, ...] = field(default=())


class NoVantage(Exception):
    """No prober could be had; `blinds` say why, with the missing right or the admission rule and a command."""

    def __init__(self, *blinds: Blind) -> None:
        super().__init__("; ".join(b.reason for b in blinds))
        self.blinds = blinds


def run_id() -> str:
    """A name for one run, unique enough for two at once: ten characters of lower case and digits."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(10))
