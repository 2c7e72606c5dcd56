"""Findings to ranked causes: pure, data-driven, no I/O."""

from mcdoctor.diagnosis.explain import END_TO_END, beside, diagnose, exit_code, limits, unexplained, verdict

__all__ = ["END_TO_END", "beside", "diagnose", "exit_code", "limits", "unexplained", "verdict"]
