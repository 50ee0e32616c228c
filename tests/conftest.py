"""What every test shares: property tests judge answers, never the time that a busy machine took to make up an example."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run without a GPU then; it is read when triton is first imported

settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
