"""`noodle-engine invite`: one line to paste on another machine, which joins with it."""

from __future__ import annotations

import asyncio

from engine.commands.machine.options import Invite
from engine.commands.output import note, print_json, say
from engine.data.errors import InvalidInput
from engine.service.addresses import is_loopback, split_address
from engine.service.trust.invitation import Desk


def invite(options: Invite) -> int:
    """Wait until the line was used, or is over."""
    return asyncio.run(_invite(options))


async def _invite(options: Invite) -> int:
    host, _ = split_address(options.join)
    listen = options.listen or f"{f'[{host}]' if ':' in host else host}:0"
    if is_loopback(listen) != is_loopback(options.join):
        raise InvalidInput(f"--listen {listen} and the coordinator at {options.join} are not reached from the same machines: give --listen")
    desk = Desk(options.folder, options.join, options.name)
    invitation = await desk.open(listen)
    if options.json:
        print_json({"invitation": str(invitation), "minutes": options.minutes})
    else:
        say(f"noodle-engine worker --join {invitation}")
        note(
            f"noodle-engine: paste it on the other machine within {options.minutes} minutes; it lets one machine in, and this waits for it"
        )
    name = await desk.used(60.0 * options.minutes)
    note(f"noodle-engine: {name} has its certificate; `noodle-engine certs revoke {name}` takes it back")
    return 0
