"""`skyrack …`: the only room that prints or exits."""

from controller.cli.main import main

__all__ = ["main"]
