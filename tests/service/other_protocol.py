"""Makes a server process speak the protocol that its environment names, as an older or a newer release would: `4`, or `4.0` with its
revision."""

from __future__ import annotations

import os

from engine.data import version

VARIABLE = "NOODLE_TEST_PROTOCOL"


def install() -> None:
    protocol, _, revision = os.environ[VARIABLE].partition(".")
    version.PROTOCOL_VERSION, version.REVISION = int(protocol), int(revision or version.REVISION)
