"""Links between machines: what was named, what was measured, what is assumed and said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.errors import InvalidInput
from engine.planning.estimating.estimate import Machine
from engine.planning.estimating.machine_links import ETHERNET, SAME_MACHINE, MachineLinks, NamedLink, links_between
from engine.planning.problem import Link
from engine.profile.hardware import DeviceType
from tests.planning.test_capability import box

CPU = replace(box("cpu"), link_latency_s=None, link_bandwidth_bytes_per_s=None)
GPU = replace(CPU, node_id="cuda:0", device_type=DeviceType.CUDA, num_sms=8)
FAR = replace(CPU, link_latency_s=0.02, link_bandwidth_bytes_per_s=5e6)
QUICK = Link(1e-6, 1e10)


def pairs(found: MachineLinks) -> dict[tuple[str, str], Link]:
    assert not isinstance(found.links, Link)
    return {(pair.from_id, pair.to_id): pair.link for pair in found.links}


def test_each_pair_has_what_is_known_best() -> None:
    machines = [Machine("a", (CPU, GPU)), Machine("b", (FAR,)), Machine("c", (CPU,))]
    found = links_between(machines, [NamedLink("a-c", QUICK), NamedLink("a.cuda:0-c", Link(1.0))][:1])
    measured = Link(0.02, 5e6)
    assert pairs(found) == {
        ("a.cpu", "a.cuda:0"): SAME_MACHINE,
        ("a.cpu", "b.cpu"): measured,
        ("a.cpu", "c.cpu"): QUICK,
        ("a.cuda:0", "b.cpu"): measured,
        ("a.cuda:0", "c.cpu"): QUICK,
        ("b.cpu", "c.cpu"): measured,
    }
    (said,) = found.assumed
    assert said.startswith("0.35 ms and 1000 MB/s are assumed between devices of one machine")
    exact = links_between(machines, [NamedLink("a.cuda:0-c.cpu", QUICK), NamedLink("c-a", Link(0.5))])
    assert pairs(exact)["a.cuda:0", "c.cpu"] == QUICK and pairs(exact)["a.cpu", "c.cpu"] == Link(0.5)


def test_two_measurements_give_the_slower_of_both() -> None:
    fast = replace(FAR, link_latency_s=0.001, link_bandwidth_bytes_per_s=1e9)
    assert links_between([Machine("a", (FAR,)), Machine("b", (fast,))]).links == Link(0.02, 5e6)
    half = replace(FAR, link_bandwidth_bytes_per_s=None)
    assert links_between([Machine("a", (half,)), Machine("b", (CPU,))]).links == Link(0.02)


def test_nothing_is_free_in_silence() -> None:
    strangers = [Machine(name, (CPU,)) for name in "abcd"]
    found = links_between(strangers)
    assert found.links == ETHERNET and "a and b, a and c, a and d and 3 more pairs: nobody measured it" in found.assumed[0]
    assert links_between(strangers, everywhere=Link(0.5)) == MachineLinks(Link(0.5))
    assert links_between(strangers[:1]) == MachineLinks(Link())


def test_names_with_dashes_are_understood_and_others_refused() -> None:
    machines = [Machine(name, (CPU,)) for name in ("box-1", "box-2", "box")]
    assert pairs(links_between(machines, [NamedLink("box-1-box-2", QUICK)]))["box-1.cpu", "box-2.cpu"] == QUICK
    with pytest.raises(InvalidInput, match="--link 'box-3' names no pair: join two of box-1, box-2, box"):
        links_between(machines, [NamedLink("box-3", QUICK)])
    with pytest.raises(InvalidInput, match="given twice for one pair"):
        links_between(machines, [NamedLink("box-1-box-2", QUICK), NamedLink("box-2-box-1", QUICK)])
    odd = [Machine(name, (CPU,)) for name in ("a", "a-b", "b-c", "c")]
    with pytest.raises(InvalidInput, match="'a-b-c' fits several pairs"):
        links_between(odd, [NamedLink("a-b-c", QUICK)])
