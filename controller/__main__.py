"""`python -m controller` is the `skyrack` command."""

from controller.cli import main

main()
