"""Completion of `kubectl mcdoctor …`: kubectl runs `kubectl_complete-mcdoctor WORDS…` and reads cobra's answer.

One candidate a line, then `:N`, cobra's directive (4: no file names, 0: file names too). Whatever cannot be
known quickly, such as names of a cluster that does not answer, is left out in silence: a prompt is no place for errors.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence

COMMANDS = {
    "diagnose": ("SRC", "DST"),
    "collect": ("SRC", "DST"),
    "replay": ("FILE", "SRC", "DST"),
    "probe": (),
    "policy": ("check", "matrix", "what-if", "explain"),
    "lab": ("list", "run", "up", "shell", "down"),
    "explain": ("ID",),
    "checks": (),
    "playbooks": (),
    "rbac": (),
    "cleanup": (),
    "version": (),
}
_FLAGS = (
    "--context", "--to-context", "--namespace", "--to-namespace", "--kubeconfig", "--as", "--as-group", "--port",
    "--symptom", "--bundle", "--to-bundle", "--lab", "--probe", "--yes", "--output", "--lang", "--save",
    "--request-timeout",
)  # fmt: skip
_SWITCHES = ("-y", "--yes", "-v", "--verbose", "-q", "--quiet", "--both")
_NO_FILES, _FILES = 4, 0
_PATIENCE = 2.0  # seconds for a whole completion


def complete_for_kubectl(words: Sequence[str]) -> int:
    """Prints the candidates for the last word; always 0."""
    done, current = list(words[:-1]), words[-1] if words else ""
    candidates, directive = _candidates(done, current)
    for candidate in candidates:
        if candidate.startswith(current):
            print(candidate)
    print(f":{directive}")
    return 0


def _candidates(done: Sequence[str], current: str) -> tuple[Iterable[str], int]:
    before = done[-1] if done else ""
    if before in ("--context", "--to-context"):
        return _contexts(done), _NO_FILES
    if before in ("-n", "--namespace", "--to-namespace"):
        return _names(done, ("Namespace",), None), _NO_FILES
    if before in ("--bundle", "--to-bundle", "--kubeconfig", "--save"):
        return (), _FILES
    if before == "--lab":
        from mcdoctor.lab import names

        return names(), _NO_FILES
    if before == "--symptom":
        from mcdoctor.models.ids import Symptom

        return [s.value for s in Symptom], _NO_FILES
    if before == "--probe":
        return ("auto", "ephemeral", "pod", "exec", "local", "none"), _NO_FILES
    if current.startswith("-"):
        return _FLAGS, _NO_FILES
    if not done:
        return COMMANDS, _NO_FILES
    wanted = COMMANDS.get(done[0], ())
    if done[0] in ("policy", "lab"):
        return wanted if len(done) == 1 else (), _NO_FILES
    position = len(_positional(done[1:]))
    what = wanted[position] if position < len(wanted) else ""
    if what == "FILE":
        return (), _FILES
    if what == "ID":
        return _ids(), _NO_FILES
    if what in ("SRC", "DST"):
        if "@" in current:
            name = current.partition("@")[0]
            return [f"{name}@{c}" for c in _contexts(done)], _NO_FILES
        kinds = ("Deployment.apps", "StatefulSet.apps", "DaemonSet.apps") if what == "SRC" else ("Service",)
        return _names(done, kinds, _option(done, "-n", "--namespace")), _NO_FILES
    return (), _NO_FILES


def _ids() -> list[str]:
    from mcdoctor.runner.registry import load as checks
    from mcdoctor_playbooks import load

    library = load()
    return [*(c.id for c in checks().checks), *library.causes, *(s.value for s in library.playbooks)]


def _positional(words: Sequence[str]) -> list[str]:
    """Words that are neither options nor their values."""
    found: list[str] = []
    value = False
    for word in words:
        if value:
            value = False
        elif word.startswith("-"):
            value = "=" not in word and word not in _SWITCHES
        else:
            found.append(word)
    return found


def _option(done: Sequence[str], *names: str) -> str | None:
    for word, value in itertools.pairwise(done):
        if word in names:
            return value
    return None


def _contexts(done: Sequence[str]) -> list[str]:
    from mcdoctor.kube.config import contexts
    from mcdoctor.kube.errors import KubeConfigError

    try:
        return list(contexts(_option(done, "--kubeconfig")).names())
    except KubeConfigError:
        return []


def _names(done: Sequence[str], kinds: Sequence[str], namespace: str | None) -> list[str]:
    from mcdoctor.kube.config import connect, contexts
    from mcdoctor.kube.errors import KubeConfigError
    from mcdoctor.kube.reader import ApiReader
    from mcdoctor.models.facts import KubeObject

    try:
        known = contexts(_option(done, "--kubeconfig"))
        context = known.named(_option(done, "--context"))
        api = connect(
            context.name,
            kubeconfig=_option(done, "--kubeconfig"),
            as_user=None,
            as_groups=(),
            request_timeout=_PATIENCE,
            deadline=time.monotonic() + _PATIENCE,
            known=known,
        )
    except KubeConfigError:
        return []
    reader = ApiReader(api)
    place = namespace or context.namespace
    found: list[str] = []
    for kind in kinds:
        listed = reader.list(kind, None if kind == "Namespace" else place)
        found.extend(o.name for o in listed if isinstance(o, KubeObject))
    return found
