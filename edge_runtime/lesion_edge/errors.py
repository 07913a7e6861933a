"""The exceptions of Lesion Edge: one sentence each, shown to the user of a command as it stands."""


class LesionEdgeError(Exception):
    """The request or its input is wrong; a command prints the sentence and exits with 2."""


class DriftAlarm(Exception):  # noqa: N818 - no error: somebody has to look
    """The images of late are unlike those of the release; a command prints the sentence and exits with 3."""


class ImageError(LesionEdgeError):
    """One image cannot be used; a run goes on without it and names it. The text is a short reason."""
