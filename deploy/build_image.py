"""Build the node image that belongs to this source, if the engine does not have it yet.

The base is python:3.12-slim where a registry answers, else a minimal Debian or Ubuntu made by mmdebstrap from this
machine's own package sources. The node's Python packages come from the lock file as wheels for the base's Python, and
are copied in: apart from the base's own packages, the build needs no network.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import Marker, default_environment

from controller.errors import MachineError, SkyrackError
from controller.runtime.engine import connect, engine_errors
from controller.runtime.image import (
    DOCKERFILE,
    IMAGE_LABEL,
    LOCK,
    PROJECT_ROOT,
    agent_sources,
    image_name,
    locked_blocks,
)

if TYPE_CHECKING:
    from docker import DockerClient

REGISTRY_BASE = "python:3.12-slim"
# A minimal root file system: apt's own choice of essential packages, and what a node needs; its words stay outside.
BASE_PACKAGES = ("iputils-ping", "iproute2", "ca-certificates")
BASE_OPTIONS = (
    "--variant=minbase",
    "--format=tar",
    '--customize-hook=rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/* "$1"/var/log/*',
)
LOCAL_BASE_REPOSITORY = "skyrack-base"
LOCAL_BASE = f"{LOCAL_BASE_REPOSITORY}:{sha256(repr((BASE_PACKAGES, BASE_OPTIONS)).encode()).hexdigest()[:16]}"
PULL_TIMEOUT_S = 15.0
PULL_DEADLINE_S = 240.0  # once it answers
MMDEBSTRAP_DEADLINE_S = 600.0
OLDEST_GLIBC_MINOR = 17  # the oldest glibc that wheels are built for today
CACHE = PROJECT_ROOT / ".cache" / "node-packages"
OLDEST_PYTHON = (3, 11)
# What is of no use in a node, a third of the size.
UNUSED = ("**/tests", "**/*.pyi", "numpy/f2py", "numpy/random/lib", "numpy/_core/lib", "numpy/_core/include", "bin")
PROBE = (
    "import json, os, platform, sys; print(json.dumps([list(sys.version_info[:3]), platform.machine(), "
    "os.confstr('CS_GNU_LIBC_VERSION').split()[1]]))"
)


@dataclass(frozen=True)
class Interpreter:
    """The Python of a base image: what wheels must fit."""

    version: tuple[int, int, int]
    machine: str  # x86_64, aarch64
    glibc_minor: int

    @property
    def series(self) -> str:
        """As in "3.12"."""
        return f"{self.version[0]}.{self.version[1]}"

    def environment(self) -> dict[str, str]:
        """What the lock's markers are to be held against."""
        version = ".".join(map(str, self.version))
        here = {key: str(value) for key, value in default_environment().items()}
        return {**here, "python_version": self.series, "python_full_version": version, "platform_machine": self.machine}

    def platforms(self) -> list[str]:
        """The wheel platforms that run there (PEP 600), newest first."""
        minors = range(self.glibc_minor, OLDEST_GLIBC_MINOR - 1, -1)
        return [*(f"manylinux_2_{minor}_{self.machine}" for minor in minors), f"manylinux2014_{self.machine}"]


def say(message: str) -> None:
    """Tell the user what goes on."""
    sys.stdout.write(f"node image: {message}\n")
    sys.stdout.flush()


@contextmanager
def timed(doing: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    say(f"{doing} …")
    start_mono_s = time.monotonic()
    yield
    say(f"{doing}: {time.monotonic() - start_mono_s:.1f} s")


def requirements_for(lock: str, interpreter: Interpreter) -> str:
    """The lock's lines of the node's packages for one interpreter, markers resolved.

    pip holds markers against the Python that it runs in, even when it downloads for another.
    """
    chosen = []
    for block in locked_blocks(lock):
        requirement, slash, hashes = block.partition(" \\\n")
        pin, _, marker = requirement.partition(";")
        if not marker or Marker(marker).evaluate(interpreter.environment()):
            chosen.append(f"{pin.strip()}{slash}{hashes}")
    return "\n".join(chosen) + "\n"


def download_packages(requirements: str, interpreter: Interpreter) -> Path:
    """A folder with the node's packages, unpacked and stripped; kept from one build to the next."""
    key = sha256(f"{interpreter}{UNUSED}{requirements}".encode()).hexdigest()[:16]
    folder = CACHE / key
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=CACHE) as scratch,
        timed(f"downloading packages for Python {interpreter.series}"),
    ):
        wanted = Path(scratch, "requirements.txt")
        wanted.write_text(requirements)
        target = Path(scratch, "packages")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
        # pip holds what a package requires of Python, too, against the one that it runs in.
        fit = ["--only-binary=:all:", "--implementation=cp", f"--python-version={interpreter.series}"]
        fit += ["--ignore-requires-python"]
        fit += [f"--platform={platform_tag}" for platform_tag in interpreter.platforms()]
        run([*pip, *fit, f"--target={target}", f"--requirement={wanted}"], "download the node's packages")
        for pattern in UNUSED:
            for path in sorted(target.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        target.rename(folder)
    return folder


def run(command: list[str], doing: str, stdin: str | None = None, deadline_s: float = 600.0) -> None:
    """Run a command quietly. Raises MachineError with its last words."""
    try:
        subprocess.run(
            command,
            input=stdin or "",
            text=True,
            check=True,
            timeout=deadline_s,
            stdout=sys.stdout,
            stderr=subprocess.PIPE,
        )
    except subprocess.CalledProcessError as error:
        raise MachineError(f"could not {doing}: {command[0]} said\n{error.stderr.strip()[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"could not {doing} within {deadline_s:.0f} s") from error


def machine_sources() -> str:
    """This machine's own package sources of its own distribution, one a line; sources of others are left out."""
    distribution = platform.freedesktop_os_release().get("ID", "debian").capitalize()
    listed = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages", f"Origin: {distribution}", "--format",
         "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"],
        text=True, check=True, capture_output=True, timeout=60,
    ).stdout  # fmt: skip
    if not listed.strip():
        raise MachineError(f"apt knows no packages of {distribution}: run `apt-get update`")
    return listed


def python_package() -> str:
    """The package whose python3 is new enough for the agent."""
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", "python3"], text=True, check=True, capture_output=True, timeout=60
    ).stdout
    version = next(line.split()[1] for line in shown.splitlines() if line.startswith("Version:"))
    if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_PYTHON:
        return "python3"
    return "python3.11"


def make_local_base(client: DockerClient) -> str:
    """A base image from this machine's package sources. Needs root."""
    run([str(PROJECT_ROOT / "deploy/apt-install.sh"), "mmdebstrap"], "install mmdebstrap")
    python = python_package()
    keyrings = sorted(Path("/usr/share/keyrings").glob("*-archive-keyring.gpg"))
    command = ["mmdebstrap", "--quiet", *BASE_OPTIONS, f"--include={','.join((python, *BASE_PACKAGES))}"]
    command += [f"--keyring={path}" for path in keyrings]
    if python != "python3":
        command += [f'--customize-hook=ln -s /usr/bin/{python} "$1"/usr/local/bin/python3']
    with tempfile.TemporaryDirectory() as scratch, timed("making a base with mmdebstrap (about a minute)"):
        archive = Path(scratch, "base.tar")
        run([*command, "", str(archive), "-"], "make a base", stdin=machine_sources(), deadline_s=MMDEBSTRAP_DEADLINE_S)
        repository, _, tag = LOCAL_BASE.partition(":")
        with engine_errors("import the base"):
            client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
    return LOCAL_BASE


def has_image(client: DockerClient, image: str) -> bool:
    """Whether the engine has an image."""
    with engine_errors("list images"):
        return bool(client.images.list(filters={"reference": image}))


def pull_registry_base() -> bool:
    """Whether a registry gave the usual base. Asked in a process of its own, which a deadline can end."""
    ask = f"from controller.runtime.engine import connect; connect().api.{{}}({REGISTRY_BASE!r})"
    try:
        subprocess.run(
            [sys.executable, "-c", ask.format("inspect_distribution")],
            check=True, capture_output=True, timeout=PULL_TIMEOUT_S,
        )  # fmt: skip
        subprocess.run(
            [sys.executable, "-c", ask.format("pull")], check=True, capture_output=True, timeout=PULL_DEADLINE_S
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    return True


def find_interpreter(client: DockerClient, base: str) -> Interpreter:
    """Ask a base image for its Python."""
    with engine_errors(f"run Python in {base}"):
        answer = client.containers.run(base, ["python3", "-c", PROBE], remove=True, network_mode="none")
    version, machine, glibc = json.loads(answer)
    return Interpreter(tuple(version), machine, int(glibc.split(".")[1]))


def build_on(client: DockerClient, base: str, image: str, network: str | None) -> None:
    """Lay out the context, and build `image` on `base`."""
    interpreter = find_interpreter(client, base)
    packages = download_packages(requirements_for((PROJECT_ROOT / LOCK).read_text(), interpreter), interpreter)
    with tempfile.TemporaryDirectory() as scratch, timed(f"building {image} on {base}"):
        context = Path(scratch)
        shutil.copy(PROJECT_ROOT / DOCKERFILE, context / "Dockerfile")
        shutil.copytree(packages, context / "packages")
        for path in agent_sources(PROJECT_ROOT):
            (context / "agent" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / path, context / "agent" / path)
        with engine_errors(f"build {image}"):
            client.images.build(
                path=str(context), tag=image, buildargs={"BASE": base}, network_mode=network, rm=True, forcerm=True,
                labels={IMAGE_LABEL: "node"},
            )  # fmt: skip


def build(client: DockerClient) -> str:
    """Build the image by the best way that works here, unless it is there. Its name."""
    image = image_name(PROJECT_ROOT)
    if has_image(client, image):
        return image
    if not has_image(client, LOCAL_BASE):
        if has_image(client, REGISTRY_BASE) or pull_registry_base():
            try:
                build_on(client, REGISTRY_BASE, image, network=None)
            except SkyrackError as error:
                say(f"{REGISTRY_BASE} does not do: {error}")
            else:
                return image
        else:
            say(f"no registry gives {REGISTRY_BASE}")
        make_local_base(client)
    build_on(client, LOCAL_BASE, image, network="none")
    return image


def remove_images(client: DockerClient) -> None:
    """Remove every image that this program made; the registry's base stays."""
    with engine_errors("remove images"):
        found = client.images.list(filters={"label": IMAGE_LABEL}) + client.images.list(LOCAL_BASE_REPOSITORY)
        ours = {tag for image in found for tag in image.tags}
        for tag in sorted(ours, reverse=True):  # nodes before what they are built on
            client.images.remove(tag)
            say(f"removed {tag}")


def main() -> int:
    """Build, or remove what was built. The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove the images instead")
    arguments = parser.parse_args()
    try:
        client = connect()
        if arguments.remove:
            remove_images(client)
        else:
            image = build(client)
            size_bytes = client.images.get(image).attrs["Size"]
            say(f"{image} is there, {size_bytes / 1e6:.0f} MB")
    except SkyrackError as error:
        sys.stderr.write(f"node image: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
