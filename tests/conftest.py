"""What every test shares: property tests judge answers, never the time that a busy machine took to make up an example."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run without a GPU then; it is read when triton is first imported

settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="noodle-state-")  # what the user of this machine keeps is no part of a test
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
