"""A candidate whose kernel runs in a sealed process, and what is asked of the process that no kernel enters."""

from __future__ import annotations

import os
from typing import Any

from matmulbench.isolation import Child, LostError
from matmulbench.isolation.requests import Request
from matmulbench.isolation.system import shared_file
from matmulbench.measurement.rounds import Candidate
from matmulbench.measurement.seal import SILENCE_S, KernelFailure, Seal, ask


class SealedCandidate(Candidate):
    """A kernel in a process of its own, which writes into a file that the parent made.

    Attributes
    ----------
    seal
        what was seen of its processes from outside.
    output
        the file's descriptor.
    child
        the process that it has now, if any.
    """

    def __init__(self, name: str, threads: int, peers: list[Seal], output_bytes: int = 0) -> None:
        super().__init__(name)
        self.seal = Seal(threads, peers)
        self.output = shared_file(output_bytes)
        self.child: Child | None = None

    @property
    def _child(self) -> Child:
        assert self.child
        return self.child

    def close(self) -> None:
        """End the process."""
        if self.child:
            self.child.close()

    def release(self) -> None:
        """End the process for good, and let its file go."""
        self.close()
        os.close(self.output)


def ask_referee(
    referee: Child, request: Request, descriptors: tuple[int, ...] = (), silence_limit: float = SILENCE_S
) -> Any:
    """Ask the process that no kernel enters: if it fails, no kernel is to blame.

    Raises
    ------
    LostError
        if it does.
    """
    try:
        return ask(referee, request, silence_limit, descriptors)
    except KernelFailure as failure:
        raise LostError(f"the suite's own process failed: {failure.reason}") from None
