"""Images as users have them, made here since no registry may answer: none of them has anything of skyrack's in it.

`scratch`: one static program, nothing else. `distroless`: a program and the C library that it is linked with, run as
a user of its own, no shell. `alpine`: BusyBox, from Debian's package of it, with a shell and Alpine's ways. `debian`:
Debian itself, as the node image is built on, with a ping whose file asks for CAP_NET_RAW.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.runtime.engine import connect
from deploy.build_image import LOCAL_BASE, has_image, make_local_base

TEST_LABEL = "skyrack.test"
PORT = 9000
SEEKER = Path(__file__).with_name("seeker.c")
CACHE = Path(__file__).parents[2] / ".cache" / "test-images"

DOCKERFILES = {
    "scratch": f"""
FROM scratch
COPY seeker-static /seeker
EXPOSE {PORT}
ENTRYPOINT ["/seeker"]
CMD ["listen", "{PORT}"]
""",
    "distroless": """
FROM scratch
COPY libraries /
COPY seeker-dynamic /usr/bin/seeker
USER 65532:65532
ENTRYPOINT ["/usr/bin/seeker"]
""",
    "alpine": """
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/etc", "/tmp", "/usr/bin", "/sbin", "/usr/sbin"]
RUN ["/bin/busybox", "--install", "-s"]
CMD ["/bin/sh", "-c", "while true; do sleep 1; done"]
""",
    "debian": f"""
FROM {LOCAL_BASE}
CMD ["sleep", "infinity"]
""",
    "silent": """
FROM scratch
COPY seeker-static /seeker
""",
}


@contextmanager
def own_images() -> Iterator[dict[str, str]]:
    """The images' names by kind; they are removed at the end."""
    client = connect()
    names: dict[str, str] = {}
    try:
        if not has_image(client, LOCAL_BASE):
            make_local_base(client)
        with tempfile.TemporaryDirectory() as scratch:
            context = Path(scratch)
            _lay_out(context)
            for kind, dockerfile in DOCKERFILES.items():
                (context / "Dockerfile").write_text(dockerfile)
                name = f"skyrack-test/{kind}:{context.name.lower().replace('_', '-')}"
                client.images.build(
                    path=str(context), tag=name, rm=True, forcerm=True, network_mode="none", labels={TEST_LABEL: kind}
                )
                names[kind] = name
        yield names
    finally:
        for name in names.values():
            client.images.remove(name, force=True)
        client.close()


def _lay_out(context: Path) -> None:
    """All that the images are made of."""
    for kind, options in (("static", ["-static"]), ("dynamic", [])):
        _run("gcc", "-O2", "-Wall", "-o", context / f"seeker-{kind}", *options, SEEKER)
    listed = subprocess.run(
        ["ldd", str(context / "seeker-dynamic")], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    for library in (word for word in listed.split() if word.startswith("/")):
        there = context / "libraries" / library.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(Path(library).read_bytes())
        there.chmod(0o755)
    (context / "busybox").write_bytes(_busybox().read_bytes())
    (context / "busybox").chmod(0o755)


def _busybox() -> Path:
    """BusyBox as one static program, from Debian's package."""
    found = CACHE / "bin" / "busybox"
    if not found.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-o", "APT::Sandbox::User=root", "download", "busybox-static"],
            cwd=CACHE, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        _run("dpkg-deb", "-x", next(CACHE.glob("busybox-static_*.deb")), CACHE)
    return found


def _run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, timeout=120)
