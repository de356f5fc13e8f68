"""The peer benchmark: ``python -m tests.benchmarks.peers``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # the other benchmarks are scripts, and import each other by name
