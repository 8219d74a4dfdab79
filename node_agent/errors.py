"""Why an agent says no (a Refusal: `services` gives each its gRPC status), or another cannot be heard.

Break
Refusal
├── InvalidArgument     what was asked is malformed
├── NotFound            no such job, or no such object here
├── AlreadyExists       the job's id is taken by another spec, or the object is here under other terms
├── PermissionDenied    who asks may not, or this node lies where the terms do not let it
├── FailedPrecondition  this agent cannot do that, or something it needs is not here
├── OutOfRange          an offset past what is committed
├── DataLoss            the bytes do not hash to their name
└── Exhausted           the store is full, or there are as many open jobs as it takes
"""

from __future__ import annotations


class Break(Exception):  # noqa: N818 — a state of the network, not a defect
    """The contact is gone, or never was. The message says how that showed."""


class Refusal(Exception):  # noqa: N818 — an answer, not a defect
    """The agent (or the peer it asked) declines, for good: asking again changes nothing."""


class InvalidArgument(Refusal):
    """What was asked is malformed."""


class NotFound(Refusal):
    """No such job, or no such object here."""


class AlreadyExists(Refusal):
    """The job's id is taken by another spec, or the object is here under other terms."""


class PermissionDenied(Refusal):
    """Who asks may not, or this node lies where the terms do not let it."""


class FailedPrecondition(Refusal):
    """This agent cannot do that, or something it needs is not here."""


class OutOfRange(Refusal):
    """An offset past what is committed."""


class DataLoss(Refusal):
    """The bytes do not hash to their name."""


class Exhausted(Refusal):
    """The store is full, or there are as many open jobs as the agent takes."""
