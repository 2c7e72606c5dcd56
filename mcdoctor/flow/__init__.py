"""From two target texts to a Flow: grammar, what to read, whom it resolves to, and what connects the clusters."""

from mcdoctor.flow.request import FlowRequest
from mcdoctor.flow.resolve import FINDINGS, Ambiguous, FlowError, NotFound, resolve
from mcdoctor.flow.target import TargetError, parse_target

__all__ = ["FINDINGS", "Ambiguous", "FlowError", "FlowRequest", "NotFound", "TargetError", "parse_target", "resolve"]
