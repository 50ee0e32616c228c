"""What messages take between machines: what was said of a pair, else what was measured, else what is assumed.

Nothing is free without being said so: every assumption comes back as a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from engine.data.errors import InvalidInput
from engine.planning.estimating.estimate import Machine
from engine.planning.problem import Link, PairLink
from engine.profile.hardware import HardwareCapability

SAME_MACHINE = Link(0.35e-3, 1e9)  # a hop of this engine over loopback, as tests/bench/README.md has it
ETHERNET = Link(0.2e-3, 125e6)  # a quiet gigabit switch


@dataclass(frozen=True, slots=True)
class NamedLink:
    """The link between two machines or two nodes, both ways; `ends` is `A-B` as it was written."""

    ends: str
    link: Link


@dataclass(frozen=True, slots=True)
class MachineLinks:
    """One link for every pair where all are equal, else the pairs; and what was assumed, in sentences."""

    links: Link | tuple[PairLink, ...]
    assumed: tuple[str, ...] = ()


def links_between(machines: Sequence[Machine], named: Sequence[NamedLink] = (), everywhere: Link | None = None) -> MachineLinks:
    """A pair of nodes takes what was named for it, or for its machines; on one machine SAME_MACHINE; else `everywhere`; else what both
    ends measured (the longer latency, the smaller bandwidth); else ETHERNET. Raises InvalidInput for names that fit no pair, or several."""
    nodes = [(machine.name, node) for machine in machines for node in machine.nodes()]
    wanted = {frozenset(_ends(entry.ends, machines)): entry.link for entry in named}
    if len(wanted) < len(named):
        raise InvalidInput("a link is given twice for one pair: keep one of them")
    pairs, guessed, local = [], [], False
    for (a, first), (b, second) in combinations(nodes, 2):
        link = wanted.get(frozenset((first.node_id, second.node_id))) or wanted.get(frozenset((a, b)) if a != b else frozenset())
        if link is None and a == b:
            link, local = SAME_MACHINE, True
        link = link or everywhere or _measured(first, second)
        if link is None:
            link = ETHERNET
            guessed.append(f"{a} and {b}")
        pairs.append(PairLink(first.node_id, second.node_id, link))
    said = []
    if guessed:
        where = list(dict.fromkeys(guessed))
        more = f" and {len(where) - 3} more pairs" if len(where) > 3 else ""
        said.append(f"{_text(ETHERNET)} assumed between {', '.join(where[:3])}{more}: nobody measured it; give --link A-B=SECONDS,BYTES/S")
    if local:
        said.append(f"{_text(SAME_MACHINE)} assumed between devices of one machine; give --link NODE-NODE=SECONDS,BYTES/S if it is known")
    different = {pair.link for pair in pairs}
    if len(different) <= 1:
        return MachineLinks(next(iter(different), everywhere or Link()), tuple(said))
    return MachineLinks(tuple(pairs), tuple(said))


def _ends(text: str, machines: Sequence[Machine]) -> tuple[str, str]:
    """`A-B`, where names may hold dashes themselves."""
    names = [*(machine.name for machine in machines), *(node.node_id for machine in machines for node in machine.nodes())]
    cuts = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == "-"]
    found = [(a, b) for a, b in cuts if a in names and b in names and a != b]
    if len(found) != 1:
        what = "fits several pairs" if found else "names no pair"
        raise InvalidInput(f"--link {text[:60]!r} {what}: join two of {', '.join(names[:8])} with a dash")
    return found[0]


def _measured(first: HardwareCapability, second: HardwareCapability) -> Link | None:
    known = [node for node in (first, second) if node.link_latency_s is not None or node.link_bandwidth_bytes_per_s is not None]
    if not known:
        return None
    bandwidths = [node.link_bandwidth_bytes_per_s for node in known if node.link_bandwidth_bytes_per_s is not None]
    latency_s = max(node.link_latency_s or 0.0 for node in known)
    return Link(latency_s, min(bandwidths)) if bandwidths else Link(latency_s)


def _text(link: Link) -> str:
    return f"{1e3 * link.latency_s:.4g} ms and {link.bandwidth_bytes_per_s / 1e6:.4g} MB/s are"
