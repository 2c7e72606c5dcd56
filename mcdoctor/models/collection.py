"""The facts of a run, read-only, with the questions that judges ask of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mcdoctor.models.facts import Absent, Blind, EndpointAnswer, Fact, KubeObject, Listed
from mcdoctor.models.flow import Flow

F = TypeVar("F", bound=Fact)


class Facts:
    """Facts by kind, objects by kind and name, and the resolved flow. `asked` remembers the kinds that were read."""

    def __init__(self, facts: Iterable[Fact] = (), flow: Flow | None = None, complete: Iterable[str] = ()) -> None:
        """`complete`: object kinds known to be whole in every cluster, besides what Listed facts say."""
        self._facts = tuple(facts)
        self.flow = flow or Flow(source_text="", destination_text="")
        self.asked: set[type[Fact]] = set()
        self._complete = frozenset(complete)
        self._by_kind: dict[type[Fact], list[Fact]] = {}
        self._objects: dict[str, dict[tuple[str, str | None, str], KubeObject]] = {}
        for fact in self._facts:
            self._by_kind.setdefault(type(fact), []).append(fact)
            if isinstance(fact, KubeObject):
                self._objects.setdefault(fact.kind, {})[(fact.cluster, fact.namespace, fact.name)] = fact

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def all(self, kind: type[F]) -> tuple[F, ...]:
        """Every fact of the kind, in the order seen."""
        self.asked.add(kind)
        return tuple(self._by_kind.get(kind, ()))  # type: ignore[arg-type]  # the index is keyed by the type itself

    def blind_to(self, kind: type[Fact] | str, about: str | None = None) -> tuple[Blind, ...]:
        """Why facts of this kind (or objects of this kind) are missing; `about` narrows to one subject."""
        wanted = kind if isinstance(kind, str) else kind.KIND
        return tuple(b for b in self.all(Blind) if b.wanted == wanted and (about is None or b.about == about))

    # --- Kubernetes objects ---

    def objects(self, kind: str, cluster: str | None = None, namespace: str | None = None) -> tuple[KubeObject, ...]:
        """Objects of a kind written with its group (`Service`, `Deployment.apps`); null means any."""
        self.asked.add(KubeObject)
        return tuple(
            o
            for (c, n, _), o in self._objects.get(kind, {}).items()
            if (cluster is None or c == cluster) and (namespace is None or n == namespace)
        )

    def object(self, kind: str, cluster: str, namespace: str | None, name: str) -> KubeObject | None:
        """One object, or None when it was not seen (which alone says nothing: see `absent` and `complete`)."""
        self.asked.add(KubeObject)
        return self._objects.get(kind, {}).get((cluster, namespace, name))

    def clusters(self) -> tuple[str, ...]:
        """Names of the clusters that any object or list came from, in the order seen."""
        seen: dict[str, None] = {}
        for fact in self._facts:
            if isinstance(fact, (KubeObject, Listed, Absent, EndpointAnswer)):
                seen.setdefault(fact.cluster)
        return tuple(seen)

    def complete(self, kind: str, cluster: str, namespace: str | None = None, selector: str | None = None) -> bool:
        """True when every object of the kind in that namespace (and under that label selector) is known."""
        if self._complete & {kind, kind.partition(".")[0], "*"}:
            return True
        self.asked.add(Listed)
        for fact in self.all(Listed):
            if (
                fact.cluster == cluster
                and fact.wanted == kind
                and fact.namespace in (None, namespace)
                and fact.selector in (None, selector)
                and fact.field_selector is None
            ):
                return True
        return any(
            a.cluster == cluster and a.wanted == kind and a.name is None for a in self.all(Absent)
        )  # the server does not know the kind at all

    def absent(self, kind: str, cluster: str, namespace: str | None, name: str) -> bool:
        """True when the server said there is no such object, or a complete list lacks it."""
        if self.object(kind, cluster, namespace, name) is not None:
            return False
        for fact in self.all(Absent):
            if (
                fact.cluster == cluster
                and fact.wanted == kind
                and (fact.name is None or (fact.name == name and fact.namespace == namespace))
            ):
                return True
        return self.complete(kind, cluster, namespace)
