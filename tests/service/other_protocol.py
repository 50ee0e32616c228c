"""Makes a server process speak the protocol that its environment names, as an older or a newer release would."""

from __future__ import annotations

import os

from engine.data import version

VARIABLE = "NOODLE_TEST_PROTOCOL"


def install() -> None:
    version.PROTOCOL_VERSION = int(os.environ[VARIABLE])
