"""Two processes with one name: who of them may have it. Pure.

The name belongs to whom it was given first, while that one lives. A process that was started again must not be turned away only
because its former self is not known to be dead yet, so the newcomer waits until the holder is lost or shows that it lives.
"""

from __future__ import annotations

from engine.control.nodes.members import Member, Members
from engine.data.errors import Refused
from engine.data.plan import NodeSpec

PROOF_BEATS = 2  # one heartbeat may have been under way when its sender died


class Claim:
    """The wish of one process to register under a name, from the moment when it first asked."""

    def __init__(self, members: Members, spec: NodeSpec) -> None:
        self._members, self._spec = members, spec
        self._seen = self._proof(members.holder(spec))

    def is_free(self) -> bool:
        """Whether the name can be had now; raises Refused once its holder has shown that it lives."""
        holder = self._members.holder(self._spec)
        if holder is None:
            return True
        (generation, num_beats), (former, first) = self._proof(holder), self._seen
        if generation != former or num_beats - first >= PROOF_BEATS:
            raise name_taken(holder)
        return False

    @staticmethod
    def _proof(holder: Member | None) -> tuple[int, int]:
        return (holder.generation, holder.num_beats) if holder is not None else (0, 0)


def name_taken(holder: Member) -> Refused:
    """The sentence for the process that is turned away."""
    spec = holder.spec
    return Refused(
        f"the name {spec.node_id} is taken by a worker that is alive on host {spec.host}, pid {spec.pid}, at {spec.address}: "
        "start this one with another --id, or stop that one first"
    )
