"""`noodle-engine invite`: one line to paste on another machine, which joins with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from engine.commands.machine.options import Invite
from engine.commands.output import note, print_json, say
from engine.data.errors import InvalidInput
from engine.service.addresses import is_loopback, split_address
from engine.service.trust.invitation import Desk, Invitation
from engine.service.worker.admission import AUTO_JOIN
from engine.service.worker.advertise import bracketed, way_out


def invite(options: Invite) -> int:
    """Wait until the line was used, or is over."""
    return asyncio.run(_invite(options))


async def _invite(options: Invite) -> int:
    is_nearby = options.join == AUTO_JOIN
    join = await _coordinator_nearby() if is_nearby else options.join
    host = way_out(join) if is_nearby else split_address(join)[0]
    listen = options.listen or f"{bracketed(host)}:0"
    if is_loopback(listen) != is_loopback(join):
        raise InvalidInput(f"--listen {listen} and the coordinator at {join} are not reached from the same machines: give --listen")
    desk = Desk(options.folder, join, options.name)
    invitation = await desk.open(listen)
    async with _announced(invitation) if is_nearby else contextlib.nullcontext(invitation) as shown:
        _show(shown, options)
        name = await desk.used(60.0 * options.minutes)
    note(f"noodle-engine: {name} has its certificate; `noodle-engine certs revoke {name}` takes it back")
    return 0


async def _coordinator_nearby() -> str:
    from engine.service.trust.discovery import find_coordinator

    return await find_coordinator()


@contextlib.asynccontextmanager
async def _announced(invitation: Invitation) -> AsyncIterator[Invitation]:
    """The same without an address, for as long as the local network is told where it is answered."""
    from engine.service.trust.discovery import INVITATIONS, Announcement

    announcement = Announcement(INVITATIONS, invitation.public_name, invitation.at)
    await announcement.open()
    try:
        yield replace(invitation, at="")
    finally:
        await announcement.close()


def _show(invitation: Invitation, options: Invite) -> None:
    if options.json:
        print_json({"invitation": str(invitation), "minutes": options.minutes})
        return
    say(f"noodle-engine worker --join {invitation}")
    note(f"noodle-engine: paste it on the other machine within {options.minutes} minutes; it lets one machine in, and this waits for it")
