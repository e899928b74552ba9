"""The command line: ``vasa3d talk portrait.jpg speech.wav`` and the rest.

``app`` holds the program and turns errors into one line and an exit code; ``make`` the commands
that make avatars, motion and videos; ``doctor`` looks at an install; ``evaluate`` measures the
product; ``train`` rebuilds shipped assets; ``console`` holds progress, warnings and results;
``options`` what the commands share. Heavy modules are imported inside the commands, so that help
is instant.
"""

from vasa3d.cli.app import main

__all__ = ["main"]
