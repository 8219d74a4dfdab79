"""The command `skyrack`: its groups of commands, and the one place where an error becomes an exit status."""

from __future__ import annotations

import os
import sys

import click

from controller.cli import (
    bench_command,
    job_commands,
    live_commands,
    object_commands,
    path_command,
    plan_commands,
    run_commands,
    security_commands,
)
from controller.cli.terminal import err
from controller.errors import SkyrackError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="skyrack", prog_name="skyrack")
def skyrack() -> None:
    """Emulate an orbital data centre: real orbits, shaped links, real jobs on every node.

    Exit status: 0 done, 1 the run failed, 2 the input is wrong, 3 the machine lacks something that `doctor` names.
    """


for command in (
    *plan_commands.COMMANDS,
    *path_command.COMMANDS,
    *run_commands.COMMANDS,
    *live_commands.COMMANDS,
    *job_commands.COMMANDS,
    *object_commands.COMMANDS,
    *security_commands.COMMANDS,
    *bench_command.COMMANDS,
):
    skyrack.add_command(command)


def main() -> None:
    """Run the command line: one message to standard error for an error, no traceback."""
    try:
        # As skyrack.main does, which would turn a broken pipe into a failure.
        with skyrack.make_context("skyrack", sys.argv[1:]) as context:
            skyrack.invoke(context)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except SkyrackError as error:
        err.print(f"skyrack: {error}", markup=False, style="red")
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        err.print("skyrack: interrupted; nothing of the run is left", markup=False)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader has what it wanted. What is left is flushed to nowhere at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
