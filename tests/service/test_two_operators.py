"""Two operators at one real cluster: neither overwrites the other, and what one changed the other can take back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from engine.cli import main
from engine.data.errors import NotFound, Refused
from engine.data.plan import Plan, Stage, former_plan
from engine.data.version import own_version
from engine.service.client import Client
from engine.service.local_options import local_options
from tests.service.running import Running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    running = Running(local_options(model="llama:tiny", random_weights=0, num_workers=2, num_threads=1, strategy="balanced", adapt="off"))
    yield running
    running.close()


def others(plan: Plan) -> list[tuple[Stage, Stage]]:
    """Two ways to cut the items between both workers that are not the plan's, whichever that is; the one nearest to it first."""
    num_items = plan.stages[-1].stop
    cuts = sorted(range(1, num_items), key=lambda cut: abs(cut - plan.stages[0].stop))
    layouts = [(Stage("w1", 0, cut), Stage("w2", cut, num_items)) for cut in cuts]
    return [layout for layout in layouts if layout != plan.stages][:2]


async def settled(client: Client, after: int) -> int:
    """The plan's version once it is a later one."""
    async for frame in client.watch(min_interval_s=0.1):
        if frame.status.plan_version > after:
            return frame.status.plan_version
    raise AssertionError("the watch ended")


def test_two_at_once_cannot_overwrite_each_other_and_a_former_plan_comes_back(cluster: Running) -> None:
    async def work() -> None:
        async with Client(cluster.address) as one, Client(cluster.address) as two:
            assert await one.version() == own_version()
            (begun,) = await one.plans()
            version, plan = begun.plan.plan_version, begun.plan
            nearest, other = others(plan)
            told = await one.estimate_move(nearest)
            assert told.num_items >= 1 and told.weight_bytes > 0 and told.num_measured == 0

            asked = await asyncio.gather(one.apply(version, "", nearest), two.apply(version, "", other), return_exceptions=True)
            accepted, refused = [p for p in asked if isinstance(p, Plan)], [e for e in asked if isinstance(e, Refused)]
            assert len(accepted) == len(refused) == 1, asked
            now = await settled(two, version)
            assert (await one.plans())[-1].plan.stages == accepted[0].stages, "the one that was refused changed nothing"

            worker = plan.stages[0].node_id
            for late in (two.apply(version), two.drain(worker, version), two.cancel("s-1", version)):
                with pytest.raises(Refused, match=f"#{now} now, the request was made for #{version}"):
                    await late
            assert not any(node.state == "drain" for node in (await two.status()).nodes)

            former = former_plan(await two.plans(), now, None)
            assert former.stages == plan.stages and (await two.plan("", former.stages)).stages == plan.stages
            await two.apply(now, "", former.stages)
            later = await settled(one, now)
            assert (await one.plans())[-1].plan.stages == plan.stages
            assert (await one.estimate_move(accepted[0].stages)).num_measured == 2
            with pytest.raises(NotFound, match=rf"plan #99 is not one to go back to; plans with other stages: #{now}"):
                former_plan(await one.plans(), later, 99)

    cluster.wait(work())


STALE = "noodle-engine: the plan is #{now} now, the request was made for #{seen}: look again\n"
OF_A_PLAN = {
    "rebalance": ("rebalance",),
    "rebalance, looked at": ("rebalance", "--dry-run"),
    "rollback": ("rollback",),
    "rollback, looked at": ("rollback", "--dry-run"),
    "drain": ("drain", "WORKER"),
    "undrain": ("undrain", "WORKER"),
    "cancel": ("cancel", "s-1"),
}


@pytest.mark.parametrize("name", OF_A_PLAN)
def test_a_command_that_was_made_for_another_plan_is_refused(cluster: Running, capsys: pytest.CaptureFixture[str], name: str) -> None:
    before = cluster.status()
    worker, now = before.nodes[0].worker_id, before.plan_version
    argv = [word.replace("WORKER", worker) for word in OF_A_PLAN[name]]
    code = main([*argv, "--connect", cluster.address, "--for-plan", str(now + 7)])
    assert (code, *capsys.readouterr()) == (2, "", STALE.format(now=now, seen=now + 7))
    after = cluster.status()
    assert (after.plan_version, [n.state for n in after.nodes]) == (now, [n.state for n in before.nodes]), "nothing was done"


def test_a_preview_says_for_which_plan_it_holds_and_is_carried_out_for_that_one(
    cluster: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    async def shift() -> int:
        plan = (await cluster.client.plans())[-1].plan
        await cluster.client.apply(plan.plan_version, "", others(plan)[0])
        return await settled(cluster.client, plan.plan_version)

    now = cluster.wait(shift())
    for argv in (["rebalance", "--strategy", "balanced"], ["rollback"], ["rollback", "--json"]):
        assert main([*argv, "--dry-run", "--connect", cluster.address]) == 0
        assert capsys.readouterr().err.endswith(f"this was made for plan #{now}, so give --for-plan {now} when you do it\n")
    assert main(["rollback", "--for-plan", str(now), "--connect", cluster.address]) == 0
    assert "--for-plan" not in capsys.readouterr().err, "it was done"
    cluster.wait(settled(cluster.client, now))


def test_the_mode_of_adaptation_is_in_the_status_and_changes_only_from_the_one_that_was_seen(cluster: Running) -> None:
    async def work() -> None:
        async with Client(cluster.address) as one, Client(cluster.address) as two:
            assert (await one.status()).adaptation.mode == "off"
            await one.set_adaptation("suggest", expected_mode="off")
            with pytest.raises(Refused, match="adaptation is suggest now"):
                await two.set_adaptation("auto", expected_mode="off")
            status = await two.status()
            assert (status.adaptation.mode, status.adaptation.suggestion_id) == ("suggest", 0)
            await two.set_adaptation("off", expected_mode="suggest")

    cluster.wait(work())
