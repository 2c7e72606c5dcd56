"""Makes `policy_build`, `policy_worlds` and the package `reference` importable from every policy test."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
