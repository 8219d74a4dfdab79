"""Keys and certificates while a run is up: kept over kill -9, renewed, given anew; and whose the control socket is."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import stat
import subprocess
import sys

import pytest
from cryptography import x509

from controller import certificates as certificates_module
from controller.certificates import Certificates
from controller.errors import InputError, SkyrackError
from controller.runs import Roots, RunPlace
from node_agent.security.wire import DATA_PORT
from protos.skyrack.v1.jobs_pb2 import JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED, JOB_STATE_WAITING_CONTACT
from tests.agent.fleet import Fleet, until
from tests.agent.identities import RUN_ID
from tests.agent.test_courier import seen, shell, states

CALL_S = 10.0
SCENE_BYTES = 3_000_000  # 3 s at 8 Mbit/s
DAY = datetime.timedelta(days=1)
NOBODY = 65534


async def serial_of(fleet: Fleet, name: str) -> int:
    """The serial number of the certificate that an agent shows to who connects now."""

    def seen_certificate() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((fleet[name].address, DATA_PORT), CALL_S) as raw,
            context.wrap_socket(raw) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    return x509.load_der_x509_certificate(await asyncio.to_thread(seen_certificate)).serial_number


def key_of(fleet: Fleet, name: str) -> bytes:
    """The key that an agent has in use."""
    pem = (fleet[name].store / "identity" / "credentials.pem").read_bytes()
    return pem[: pem.index(b"-----END PRIVATE KEY")]


async def test_a_restarted_agent_serves_others_without_the_controller(fleet: Fleet) -> None:
    """After kill -9 it has the certificate it had; nobody gives it another."""
    await fleet.launch("sat")
    before = await serial_of(fleet, "sat")
    await fleet["sat"].restart()
    assert await serial_of(fleet, "sat") == before
    assert await fleet.is_served("sat")


async def test_new_keys_break_nothing_that_is_under_way(fleet: Fleet) -> None:
    """Rotated at both ends amid a transfer, and amid the job: neither is broken off; who connects later sees the new
    certificate, and the old key is on no disk."""
    link = await fleet.link(200, fleet.address(2), 8e6)
    await fleet.launch("gw", "sat", via={"sat": link.address})
    gw, sat = await fleet.client("gw"), await fleet.client("sat")
    scene = await gw.put_bytes(os.urandom(SCENE_BYTES))
    before = {name: await serial_of(fleet, name) for name in ("gw", "sat")}
    old_keys = {name: key_of(fleet, name) for name in before}

    async def rotate() -> None:
        for client, name in ((gw, "gw"), (sat, "sat")):
            await client.certify(fleet.authority, fleet[name].subject, renew=True)

    flag = fleet.folder / "go-on"
    spec = shell("j", f"while [ ! -e {flag} ]; do sleep 0.05; done; wc -c < $SKYRACK_INPUTS")
    spec.inputs.add(object=scene.object)
    await gw.submit(spec)
    await until(lambda: link.carried_bytes > SCENE_BYTES / 4, "a quarter of it is up")
    await rotate()
    assert link.carried_bytes < SCENE_BYTES
    await seen(gw, "j", lambda job: job.state == JOB_STATE_RUNNING)
    await rotate()
    flag.touch()
    job = await gw.wait_final("j", 30)
    assert (job.state, int(job.stdout), job.attempt) == (JOB_STATE_SUCCEEDED, SCENE_BYTES, 1)
    assert states(job).count(JOB_STATE_WAITING_CONTACT) == 1  # before it first went
    assert job.moved_bytes == SCENE_BYTES
    for name in before:
        assert await serial_of(fleet, name) != before[name]
        files = [path for path in fleet[name].store.rglob("*") if path.is_file()]
        assert key_of(fleet, name) != old_keys[name]
        assert not any(old_keys[name] in path.read_bytes() for path in files)
    await gw.submit(shell("later", "true"))
    assert (await gw.wait_final("later", 30)).state == JOB_STATE_SUCCEEDED


async def run_certificates(fleet: Fleet, *names: str, lifetime: datetime.timedelta = DAY) -> Certificates:
    """A run's certificates, which these nodes have been given."""
    now_utc = datetime.datetime.now(datetime.UTC)
    certificates = Certificates(RunPlace(RUN_ID, "", fleet.folder, 1, 1, now_utc, roots=Roots(*[fleet.folder] * 2)))
    certificates.authority.lifetime = lifetime
    for name in names:
        await certificates.meet(await fleet.client(name), fleet[name].subject, CALL_S)
    return certificates


async def test_certificates_are_renewed_in_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With certificates that hold three seconds, nodes serve each other for ten, each time with another key."""
    monkeypatch.setattr(certificates_module, "LOOK_S", 0.2)
    await fleet.launch("gw", "sat")
    certificates = await run_certificates(fleet, "gw", "sat", lifetime=datetime.timedelta(seconds=3))
    gw = await fleet.client("gw")
    keys = [key_of(fleet, "sat")]
    keeping = asyncio.create_task(certificates.keep())
    try:
        while len(keys) < 5:
            await until(lambda: key_of(fleet, "sat") != keys[-1], "another key", 10)
            keys.append(key_of(fleet, "sat"))
            await gw.submit(shell(f"j{len(keys)}", "true"))
            assert (await gw.wait_final(f"j{len(keys)}", 10)).state == JOB_STATE_SUCCEEDED
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert len(set(keys)) == len(keys)


async def test_a_run_gives_new_keys_when_asked_to(fleet: Fleet) -> None:
    """To one node, to all; a name that is none, or a node that does not answer, is told, and the others have theirs."""
    await fleet.launch("gw", "sat")
    certificates = await run_certificates(fleet, "gw", "sat")
    keys = {name: [key_of(fleet, name)] for name in ("gw", "sat")}
    assert await certificates.rotate(["sat"]) == 1
    assert key_of(fleet, "gw") == keys["gw"][-1]
    assert key_of(fleet, "sat") != keys["sat"][-1]
    keys["sat"].append(key_of(fleet, "sat"))
    assert sorted(await asyncio.gather(certificates.rotate(), certificates.rotate(["sat"]))) == [1, 2]
    assert key_of(fleet, "sat") not in keys["sat"]
    assert key_of(fleet, "gw") != keys["gw"][-1]
    with pytest.raises(InputError, match="there is no node 'moon'"):
        await certificates.rotate(["moon"])
    fleet["sat"].kill()
    keys["gw"].append(key_of(fleet, "gw"))
    with pytest.raises(SkyrackError, match="1 of 2 nodes keep their keys: the agent of sat does not answer"):
        await certificates.rotate()
    assert key_of(fleet, "gw") not in keys["gw"]


async def test_the_control_socket_is_its_owners_alone(fleet: Fleet) -> None:
    """Another user of the machine who finds the way to it may not open it; root can try."""
    await fleet.launch("gw")
    path = fleet["gw"].control_socket
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    if os.geteuid() == 0:
        fleet.folder.chmod(0o755)
        connect = f"import os, socket; os.setuid({NOBODY}); socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", connect], capture_output=True, text=True, check=False, timeout=60
        )
        assert "PermissionError: [Errno 13]" in done.stderr
