"""Says whether the rig can run here now, from a warm cache, and if not why; exit code 0 or 1."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mcrig.__main__ import available

sys.exit(available())
