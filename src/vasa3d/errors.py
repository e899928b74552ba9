"""What can go wrong for a user, and what to do next.

::

    VasaError                 anything below; the CLI prints it as one line and exits with code 2
    ├── InputError            a file or value that the user gave cannot be used
    │   ├── ImageError        not a readable image, or too large
    │   ├── FaceError         no face, a face too small, cut off or covered, or several equal ones
    │   ├── AudioError        not readable sound, or no sound in it
    │   ├── AvatarFileError   not an avatar file, damaged, or from a newer version
    │   ├── MotionFileError   not a motion file, or its columns are wrong
    │   └── SceneFileError    not a .ply or .spz scene of Gaussians, a damaged one, or too large
    ├── OutputError           a result cannot be written (exists, no permission, disk full)
    └── MissingError          an optional package or asset is not installed

Every error carries a ``hint``: the next thing to try. A bug raises an ordinary Python exception instead.
"""

from __future__ import annotations


class VasaError(Exception):
    """Base of every error that a user can mend.

    Args:
        message: What happened, one line, with the offending value in it.
        hint: What to do next, one line.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} hint: {self.hint}"


class InputError(VasaError):
    """A file or value that the user gave cannot be used."""


class ImageError(InputError):
    """Not a readable image, or too large to be one."""


class FaceError(InputError):
    """No usable face in the picture."""


class AudioError(InputError):
    """Not readable sound, or no sound in it."""


class AvatarFileError(InputError):
    """Not an avatar file, a damaged one, or one from a newer version."""


class MotionFileError(InputError):
    """Not a motion file, or one with wrong columns."""


class SceneFileError(InputError):
    """Not a ``.ply`` or ``.spz`` scene of Gaussians, a damaged one, or one that is too large."""


class OutputError(VasaError):
    """A result cannot be written."""


class MissingError(VasaError):
    """An optional package or a shipped asset is missing."""
