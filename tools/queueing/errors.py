"""What can end a queued workflow without its outputs; each error is one sentence and knows its exit code."""

from __future__ import annotations

from typing import ClassVar

DONE = 0


class QueueingError(RuntimeError):
    """Something ended a command or an item; the text is one sentence for the person at the terminal."""

    code: ClassVar[int] = 1


class WorkflowFailed(QueueingError):
    """The server refused the workflow, or a node failed."""


class WrongUsage(QueueingError):
    """A file, a title or a value that was given cannot be used."""

    code = 2


class NoServer(QueueingError):
    """No ComfyUI answers, or it ended on the way."""

    code = 3


class Cancelled(QueueingError):
    """The workflow was stopped before its end."""

    code = 130
