"""The checks that ship with mcdoctor, a room a layer."""

from mcdoctor.check import Check
from mcdoctor_checks import flow

CHECKS: tuple[Check, ...] = (*flow.CHECKS,)
"""Every built-in check: the one explicit list."""
