"""Which program this is and which protocol it speaks, so that two sides can tell before they misunderstand each other."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.errors import Refused

PROTOCOL_VERSION = 4  # rises when an older side could not work with a newer one; fields that may be ignored do not count
REVISION = 1  # rises when such a side can be asked for more within the same protocol
SEVERAL_NODES = 1  # from that revision on one drain may name several nodes
DISTRIBUTION = "noodlecore"


@dataclass(frozen=True, slots=True)
class Version:
    """`protocol_version` 0: a side from before it could be asked."""

    package_version: str
    protocol_version: int
    revision: int = 0

    def __str__(self) -> str:
        if not self.protocol_version:
            return "of a version that it cannot tell"
        return f"{self.package_version or 'of an unknown version'} (protocol {self.protocol_version})"


def own_version() -> Version:
    """This side's; a source tree that was never installed has no package version."""
    from importlib import metadata  # 20 ms that only a conversation about versions needs

    try:
        return Version(metadata.version(DISTRIBUTION), PROTOCOL_VERSION, REVISION)
    except metadata.PackageNotFoundError:
        return Version("", PROTOCOL_VERSION, REVISION)


def check_protocol(name: str, other: Version) -> None:
    """Raise Refused, with both versions and the way out, if the worker `name` speaks another protocol than this side."""
    if other.protocol_version == PROTOCOL_VERSION:
        return
    older = f"worker {name}" if other.protocol_version < PROTOCOL_VERSION else "the coordinator"
    raise Refused(
        f"worker {name} is {other}, the coordinator is {own_version()}: they cannot work together; bring {older} up to date "
        f"(pip install -U {DISTRIBUTION})"
    )


def check_takes_several(coordinator: Version) -> None:
    """Raise Refused if that coordinator knows no plan that leaves out, or takes in, several nodes at once."""
    if coordinator.revision < SEVERAL_NODES:
        raise Refused(
            f"the coordinator is {coordinator} and drains one node at a time: name one, or bring the coordinator up to date "
            f"(pip install -U {DISTRIBUTION})"
        )
