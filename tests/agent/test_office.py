"""The controller's desks with real agents: jobs placed, journalled and followed; who lies outside is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controller.errors import InputError
from controller.jobs.desk import GatewayJob
from controller.jobs.journal import Journal
from controller.scenario.fault_model import Fault
from protos.skyrack.v1.jobs_pb2 import JOB_STATE_SUCCEEDED, JobInput, JobSpec
from tests.agent.fleet import Fleet, until
from tests.agent.small_run import SmallRun, office, small_run

SATELLITES = ["cn-p00s00", "cn-p01s00", "us-p00s00", "us-p00s01"]


def shell(job_id: str, script: str = 'echo "$SKYRACK_NODE"', **more: object) -> JobSpec:
    """A job that runs a line of shell."""
    return JobSpec(id=job_id, command=JobSpec.Command(argv=["sh", "-c", script]), **more)  # type: ignore[arg-type]


async def seen_satellites(run: SmallRun) -> list[str]:
    """The satellites that the gateways see all along; there are some."""
    names = [node.name for node in run.schedule.timeline.nodes]
    links, up = run.schedule.timeline.links, run.state.sky.link
    return sorted({names[end] for end in (*links.a[up], *links.b[up])} & set(SATELLITES))


async def test_a_policy_chooses_the_node_and_explains_itself(fleet: Fleet) -> None:
    """The job runs where placement said; `explain` has a verdict on every node, the best first."""
    run = await small_run(fleet)
    seen: list[GatewayJob] = []
    async with office(run, fleet, seen) as desks:
        taken = await desks.desk.submit("gw-cn", shell("j1"), policy="earliest-result")
        assert taken.job.spec.on_node in await seen_satellites(run)
        job = (await desks.desk.finished("j1")).job
        assert (job.state, job.stdout.decode().strip()) == (JOB_STATE_SUCCEEDED, taken.job.spec.on_node)
        told, _ = await desks.desk.explain("j1")
        assert (told.policy, told.chosen) == ("earliest-result", taken.job.spec.on_node)
        assert sorted(verdict.node for verdict in told.verdicts) == sorted([*SATELLITES, "gw-cn", "gw-us"])
        assert told.verdicts[0].node == told.chosen
        results_s = [verdict.result_at_s for verdict in told.verdicts if verdict.feasible]
        assert results_s == sorted(results_s)
        assert desks.desk.policy_of("j1") == "earliest-result"
        await until(lambda: seen[-1].job.state == JOB_STATE_SUCCEEDED, "the record has its end")


async def test_submission_is_idempotent_with_its_policy(fleet: Fleet) -> None:
    """The same again is the same job at the same node, whatever the sky is by then; anything else is refused."""
    run = await small_run(fleet)
    async with office(run, fleet, []) as desks:
        first = await desks.desk.submit("gw-cn", shell("j1", "sleep 1"), policy="spread", deadline_s=60.0)
        run.t_s = 30.0
        run.downs[first.job.spec.on_node] = "it is lost"
        both = await asyncio.gather(
            *(desks.desk.submit("gw-cn", shell("j1", "sleep 1"), policy="spread", deadline_s=60.0) for _ in range(2))
        )
        assert {entry.job.spec.on_node for entry in both} == {first.job.spec.on_node}
        assert first.job.spec.deadline_emu_ns == 60_000_000_000
        for changed in ({"policy": "data-local"}, {"policy": "spread", "deadline_s": 61.0}, {}):
            with pytest.raises(InputError, match="'j1' exists"):
                await desks.desk.submit("gw-cn", shell("j1", "sleep 1"), **changed)
        assert len(await desks.desk.list()) == 1


async def test_a_controller_that_was_killed_knows_all_when_it_is_back(fleet: Fleet) -> None:
    """Its journal has the job, why it is where it is, and what was denied; the new one follows the job to its end."""
    run = await small_run(fleet)
    async with office(run, fleet, []) as desks:
        await desks.desk.submit("gw-cn", shell("j1", "sleep 2; echo done"), policy="earliest-result")
        told, _ = await desks.desk.explain("j1")
        with pytest.raises(InputError):
            await desks.desk.submit("gw-us", shell("j2", jurisdictions=["CN"]))
    unsent = JobSpec(id="j3")
    entry = Journal(fleet.folder / "controller.db").job("j1")
    assert entry is not None
    Journal(fleet.folder / "controller.db").decide(replace(entry, spec=unsent, stands="placed"))
    seen: list[GatewayJob] = []
    async with office(run, fleet, seen) as desks:
        assert (await desks.desk.explain("j1"))[0] == told
        assert desks.desk.policy_of("j1") == "earliest-result"
        await until(lambda: bool(seen) and seen[-1].job.state == JOB_STATE_SUCCEEDED, "it follows the job again")
        with pytest.raises(InputError, match="no job 'j3'"):  # nobody was told of it, and no gateway has it
            await desks.desk.find("j3")
        assert [event.of for event in desks.journal.audit()] == ["j2"]


async def test_who_lies_outside_is_refused_and_written_down(fleet: Fleet) -> None:
    """Neither given in nor run outside; where a policy finds nobody inside, that is an event, too."""
    run = await small_run(fleet)
    async with office(run, fleet, []) as desks:
        submit = desks.desk.submit
        with pytest.raises(InputError, match="j1: gw-us lies in US, outside CN"):
            await submit("gw-us", shell("j1", jurisdictions=["CN"]))
        with pytest.raises(InputError, match="j1: us-p00s00 lies in US, outside CN"):
            await submit("gw-cn", shell("j1", jurisdictions=["CN"], on_node="us-p00s00"))
        with pytest.raises(InputError, match="'china' is no code"):
            await submit("gw-cn", shell("j1", jurisdictions=["china"]))
        run.downs = dict.fromkeys(["cn-p00s00", "cn-p01s00"], "it is lost")
        with pytest.raises(InputError, match=r"job j1: no node can take it: .* 2 outside its jurisdictions, 2 down"):
            await submit("gw-cn", shell("j1", jurisdictions=["CN"]), policy="spread")
        told, entry = await desks.desk.explain("j1")
        assert (told.chosen, entry.job.state) == ("", 0)
        with pytest.raises(InputError, match="no node can take it"):
            await desks.desk.find("j1")
        run.downs = {}
        taken = await submit("gw-cn", shell("j1", jurisdictions=["CN"]), policy="spread")
        assert taken.job.spec.on_node.startswith("cn")
        events = desks.journal.audit()
        assert [(event.kind, event.what, event.of) for event in events] == [("denied", "submit", "j1")] * 3
        assert "2 nodes lie outside CN" in events[2].reason


async def test_outputs_bind_the_jobs_that_use_them(fleet: Fleet) -> None:
    """What a job of CN leaves on a satellite may not be processed elsewhere, though nobody says so again; data-local
    goes to where it lies."""
    run = await small_run(fleet)
    async with office(run, fleet, []) as desks:
        made = shell(
            "made", 'echo data > "$SKYRACK_OUTPUT_DIR/data"', jurisdictions=["CN"], on_node="cn-p01s00",
            keep_outputs_on_node=True,
        )  # fmt: skip
        await desks.desk.submit("gw-cn", made)
        output = (await desks.desk.finished("made")).job.outputs[0]
        await until(lambda: desks.journal.known(output.object) is not None, "its place is known")
        assert output.at_node == "cn-p01s00"
        uses = [JobInput(object=output.object, at_node=output.at_node)]
        with pytest.raises(InputError, match="us-p00s00 lies in US, outside CN"):
            await desks.desk.submit("gw-cn", shell("used", inputs=uses, on_node="us-p00s00"))
        with pytest.raises(InputError, match="may lie in CN alone, and the job is for US"):
            await desks.desk.submit("gw-cn", shell("used", inputs=uses, jurisdictions=["US"]), policy="spread")
        taken = await desks.desk.submit(
            "gw-cn", shell("used", 'cat "$SKYRACK_INPUTS"', inputs=uses), policy="data-local"
        )
        assert taken.job.spec.on_node == "cn-p01s00"
        assert list(taken.job.spec.jurisdictions) == ["CN"]
        assert (await desks.desk.finished("used")).job.stdout == b"data\n"


async def test_a_burst_is_spread_before_any_agent_has_told_of_its_load(fleet: Fleet) -> None:
    """As many jobs as there are satellites in sight, at once: one for each; a mute agent gets none."""
    run = await small_run(fleet)
    fleet["us-p00s01"].kill()
    async with office(run, fleet, []) as desks:
        inside = [name for name in await seen_satellites(run) if name != "us-p00s01"]
        for number, _ in enumerate(inside):
            await desks.desk.submit("gw-cn", shell(f"j{number}", "sleep 5"), policy="spread")
        assert sorted(entry.job.spec.on_node for entry in await desks.desk.list()) == inside
        (mute,) = [v for v in (await desks.desk.explain("j0"))[0].verdicts if v.node == "us-p00s01"]
        assert "does not answer" in mute.reason or "no contacts" in mute.reason


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": "best"}, "no policy 'best'"),
        ({"policy": "pinned"}, "pinned needs nodes"),
        ({"policy": "spread", "pinned_to": ("cn-p00s00",)}, "no other policy takes any"),
        ({"policy": "pinned", "pinned_to": ("sputnik",)}, "no node 'sputnik'"),
    ],
)
async def test_wrong_placement_is_one_message(fleet: Fleet, wrong: dict[str, str], message: str) -> None:
    """What, and what would be right; nothing is journalled."""
    run = await small_run(fleet)
    async with office(run, fleet, []) as desks:
        with pytest.raises(InputError, match=message):
            await desks.desk.submit("gw-cn", shell("j1"), **wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="no node 'sputnik'"):
            await desks.desk.submit("gw-cn", shell("j1", on_node="sputnik"))
        with pytest.raises(InputError, match="either for a node"):
            await desks.desk.submit("gw-cn", shell("j1", on_node="cn-p00s00"), policy="spread")
        with pytest.raises(InputError, match="no gateway or terminal"):
            await desks.desk.submit("cn-p00s00", shell("j1"))
        assert desks.journal.job("j1") is None


async def test_a_blackout_of_the_gateway_keeps_no_job_from_being_placed(fleet: Fleet) -> None:
    """It passes: the contacts of where a job is handed in are taken as planned. One of a satellite is a reason."""
    run = await small_run(fleet)
    (best, other, *_) = await seen_satellites(run)
    for target in ("gw-cn", best):
        run.schedule.faults.inject(Fault(kind="blackout", target=target, at_s=0.0), 0.0)
        run.blackouts[target] = f"{target} is in blackout (silent) until it is cleared"
    async with office(run, fleet, []) as desks:
        taken = await desks.desk.submit("gw-cn", shell("j1"), policy="pinned", pinned_to=(best, other))
        assert taken.job.spec.on_node == other
        told, _ = await desks.desk.explain("j1")
        assert {v.node: v.reason for v in told.verdicts}[best] == run.blackouts[best]
