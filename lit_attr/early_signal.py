"""A signal that comes before anybody listens: noted from the first moment of a process on, and taken up later.

SLURM announces the end of a job by SIGUSR1, which kills a process that does not listen, and importing torch and
Lightning takes seconds.
"""

import signal
from types import FrameType

_noted: list[int] = []


def listen() -> None:
    """Note SIGUSR1 from now on, unless somebody listens to it, or it is ignored; in the main thread."""
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, _note)


def take() -> bool:
    """Whether a signal was noted; it counts as heard from now on."""
    was_noted = bool(_noted)
    _noted.clear()
    return was_noted


def _note(number: int, frame: FrameType | None) -> None:
    _noted.append(number)
