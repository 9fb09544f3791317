"""The conditions under which rounds were held: what else the machine was doing, and whether it kept its pace."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from matmulbench.isolation import Host
from matmulbench.ladder.devices import DEVICES

_CHANGE_SPEED = (
    "ATEN_CPU_CAPABILITY", "DNNL_VERBOSE", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "MKL_VERBOSE",
    "ONEDNN_MAX_CPU_ISA", "ONEDNN_VERBOSE", "OPENBLAS_CORETYPE", "OPENBLAS_VERBOSE",
)  # fmt: skip
_DRIFT = 0.03
_STOLEN = 0.10
_SPREAD = 0.05


class Conditions:
    """Watch the machine from construction on; :meth:`warnings` says what was amiss. ``host`` is the suite's own.

    ``clocks`` are the MHz of a device's processors and memory at the start and, with the warnings, at the end.
    """

    def __init__(self, host: Host, device: str = "cpu") -> None:
        self._host, self._device = host, DEVICES[device]
        self.clocks = [self._device.clocks()] if self._device else []
        self._busy_s, self._total_s = _machine_s()
        self._own_s = self._used_s()
        self._swapped = psutil.swap_memory().sout

    def warnings(self, calibration: list[tuple[float, float]]) -> list[str]:
        """Name each cause of noise that was seen, and what to do about it.

        Parameters
        ----------
        calibration
            seconds that fixed work took in each round, in time order; see :mod:`~matmulbench.measurement.calibration`.
        """
        found = []
        busy_s, total_s = _machine_s()
        others_s = (busy_s - self._busy_s) - (self._used_s() - self._own_s)
        share = others_s / max(total_s - self._total_s, 1e-9) * (psutil.cpu_count() or 1)
        if share > _STOLEN:
            found.append(f"other load: other processes kept {share:.1f} cores busy; end them and measure again")
        if psutil.swap_memory().sout > self._swapped:
            found.append("swap: memory was written to disk; measure with smaller workloads or fewer programs open")
        if len(calibration) >= 9:
            arithmetic, calls = np.transpose(calibration)
            if drift := _drift(arithmetic):
                found.append(f"frequency drift (throttling?): fixed arithmetic {drift}")
            elif drift := _drift(calls):
                found.append(f"drift (a neighbour on the same core?): fixed calls {drift}")
            low, high = np.quantile(arithmetic, [0.1, 0.9])
            if high / low - 1 > _SPREAD and not share > _STOLEN:
                found.append(
                    f"unsteady processor: fixed work varied by {100 * (high / low - 1):.0f} %; a larger --budget helps"
                )
        if self._device:
            self.clocks.append(self._device.clocks())
            before, after = self.clocks[0], self.clocks[-1]
            if not (before and after):
                found.append("device clocks: unknown, for nvidia-smi does not say; they may have changed")
            elif abs(after[0] / before[0] - 1) > _DRIFT:
                found.append(
                    f"device clocks: {before[0]} MHz at first, {after[0]} MHz at last; ratios are paired and hold"
                )
        return found

    def _used_s(self) -> float:
        """Return the seconds of processor time that the suite itself has used."""
        return time.process_time() + self._host.used_s


def variables() -> list[str]:
    """Name the variables of the environment that change how fast torch and numpy are."""
    there = [name for name in _CHANGE_SPEED if os.environ.get(name, "0") not in ("", "0")]
    return [f"{name} is set: libraries may be slower or faster for it" for name in there]


def _drift(seconds: npt.NDArray[np.float64]) -> str | None:
    """Say how the last third of ``seconds`` differs from the first, if it does."""
    third = len(seconds) // 3
    change = float(np.median(seconds[-third:]) / np.median(seconds[:third])) - 1
    if abs(change) <= _DRIFT:
        return None
    how = "slower" if change > 0 else "faster"
    return f"ran {100 * abs(change):.0f} % {how} at the end; ratios are paired and hold, compare times with care"


def _machine_s() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and all that there were, since boot."""
    times: Any = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return sum(times) - idle - getattr(times, "guest", 0.0), sum(times)
