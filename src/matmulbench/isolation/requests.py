"""All that children are asked to do: one request a class, with the function that does it in the child.

The functions are named as text because the parent must not import them: they need torch, and run beside the kernel.
A function takes the fields of its request; what it returns must be JSON.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any, ClassVar, dataclass_transform

from matmulbench.workload import Workload


@dataclass_transform(frozen_default=True)
class Request:
    """One thing to do in a child; each is a frozen dataclass. ``target`` says where the function is that does it.

    ``reports_import`` says that a sign of life follows as soon as what the user wrote is imported.
    """

    target: ClassVar[str]
    reports_import: ClassVar[bool] = False

    def __init_subclass__(cls, target: str) -> None:
        cls.target = target
        dataclass(frozen=True)(cls)

    @property
    def imports(self) -> bool:
        """Whether it imports a user's kernel or model."""
        return any(hasattr(self, name) for name in ("spec", "task", "model"))

    def carry_out(self, descriptors: list[int]) -> Any:
        """Do it, here; ``descriptors`` are of files that came with it."""
        module, _, name = self.target.partition(":")
        arguments = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        if descriptors:
            arguments["descriptors"] = descriptors
        return getattr(importlib.import_module(module), name)(**arguments)

    @classmethod
    def module(cls) -> str:
        """Return the module that a host imports before it forks."""
        return cls.target.partition(":")[0]


class LoadKernel(Request, target="matmulbench.verification.worker:load"):
    """Import a kernel."""

    reports_import = True
    spec: str


class FindDevice(Request, target="matmulbench.verification.worker:find_device"):
    """Look whether this machine has a device; what that raises says why not."""

    device: str


# --- is it right -------------------------------------------------------------------------------------


class Examine(Request, target="matmulbench.verification.worker:examine"):
    """Examine the kernel ``spec`` for ``dtype``; returns its report."""

    reports_import = True
    spec: str
    dtype: str
    effort: str


class Confirm(Request, target="matmulbench.verification.worker:confirm"):
    """Judge one case, given by its fields, alone, in a process without a past."""

    spec: str
    case: dict[str, Any]


class Repeat(Request, target="matmulbench.verification.worker:repeat"):
    """Judge one case, given by its fields, and show its result."""

    spec: str
    case: dict[str, Any]


class Multiply(Request, target="matmulbench.verification.worker:multiply"):
    """Multiply cases, given by their fields, and write the results into the shared file that comes with it."""

    spec: str
    cases: list[dict[str, Any]]


class ProductError(Request, target="matmulbench.verification.worker:product_error"):
    """Return how far the product of ``workload`` is from that of operands that are not rounded to its dtype."""

    spec: str
    workload: Workload


class Judge(Request, target="matmulbench.verification.worker:judge_results"):
    """Judge the results that another process wrote into the shared file; returns a finding or None."""

    cases: list[dict[str, Any]]
    allow_normwise: bool
    accumulation: str | None


# --- how fast ----------------------------------------------------------------------------------------


class MeasureRoof(Request, target="matmulbench.measurement.peaks:measure_roof"):
    """Measure the roof; returns the fields of a :class:`~matmulbench.measurement.roof.Roof`."""

    dtype: str
    threads: int
    device: str


class Calibrate(Request, target="matmulbench.measurement.calibration:calibrate"):
    """Time a fixed amount of work; returns the seconds of its two kinds."""


class CompileSeconds(Request, target="matmulbench.measurement.worker:compile_seconds"):
    """Time the first call of a kernel with an empty cache."""

    spec: str
    dtype: str


class OpenWorkload(Request, target="matmulbench.measurement.worker:open_workload"):
    """Load a kernel and map the operands, to be copied to ``device``, and the output that come with it."""

    spec: str
    workload: Workload
    windows: int
    device: str


class LearnCost(Request, target="matmulbench.measurement.worker:learn_cost_here"):
    """Learn what a call costs, on ever larger sub-problems; returns the fields of a cost."""

    limit_s: float | None


class RunBlock(Request, target="matmulbench.measurement.worker:run_block"):
    """Warm up, wait for the windows of a block and for the word, and run it; returns the clock, and more."""

    problem: Workload
    left: list[int]
    right: list[int]
    seen: bool
    cold: bool


class CommitBlock(Request, target="matmulbench.measurement.worker:commit_block"):
    """Write all results of the block into this child's shared output; returns what is wrong with their form."""


class CheckSettings(Request, target="matmulbench.verification.state:changed_settings"):
    """Say what has changed in the child's arithmetic, clocks and threads since its kernel was loaded."""


class OpenReferee(Request, target="matmulbench.measurement.referee:open_operands"):
    """Map a workload's operands, to be written, in the child that no kernel enters; fill them."""

    workload: Workload
    windows: int


class StartRound(Request, target="matmulbench.measurement.referee:start_round"):
    """Change the operands' contents and time a fixed amount of work."""


class CheckBlock(Request, target="matmulbench.measurement.referee:check"):
    """Compare a block's results, in the shared output that comes with it, with the products; returns a finding or None.

    ``left`` and ``right`` are the windows of all calls, ``drawn`` is the one to be compared element by element, if any;
    ``accumulation`` is the dtype in which the kernel says that it adds.
    """

    problem: Workload
    left: list[int]
    right: list[int]
    drawn: int | None
    accumulation: str | None


class TunePlans(Request, target="matmulbench.tuning:tune_here"):
    """Tune ``numba-tiled`` for ``seconds``, and verify it; returns rows of what won, and plans, those ``kept`` too."""

    threads: int
    seconds: float
    kept: dict[str, tuple[str, ...]]


# --- what it buys ------------------------------------------------------------------------------------


class OpenTraining(Request, target="matmulbench.training.worker:open_training"):
    """Load a training and what does its products on ``device``: a kernel, or torch.nn; returns costs of its products.

    ``place`` is which of how many ranks this is, the URL at which they meet, and how many seconds it waits for others.
    """

    task: str
    spec: str | None
    seed: int
    data_dir: str | None
    options: dict[str, Any]
    device: str
    place: tuple[int, int, str, float] | None = None


class ServeRanks(Request, target="matmulbench.training.ranks:serve_ranks"):
    """Start ranks on this host for another one, which connects to a port that is sent, until this process is ended."""

    ip: str
    key: bytes
    import_s: float
    preload: Any
    files: dict[str, str]


class CompileModel(Request, target="matmulbench.training.worker:compile_model"):
    """Have ``torch.compile`` compile the model of a training that has no kernel; returns how many seconds it takes."""


class TrainSteps(Request, target="matmulbench.training.worker:train_steps"):
    """Train from one step to another; returns clock before and after, losses, and seconds of its parts."""

    first: int
    last: int
    stopwatch: bool


class PreloadTask(Request, target="matmulbench.training.custom_model:preload"):
    """Load a built-in task's data, in the host, so that all its children have it."""

    task: str
    seed: int
    data_dir: str | None
    options: dict[str, Any]


class CommitParameters(Request, target="matmulbench.training.worker:commit_parameters"):
    """Write the parameters into the shared file that comes with it; returns how many bytes."""


class TrainFewRows(Request, target="matmulbench.training.worker:train_few_rows"):
    """Learn for ``steps`` steps from the first rows of the first batch alone; returns the losses."""

    rows: int
    steps: int


class DescribeTraining(Request, target="matmulbench.training.referee:describe"):
    """Describe a training in the child that no kernel enters: its name, rows, steps, products and what a step costs.

    ``quiet`` keeps back what a model prints as it is made, and warns of, where an earlier process has said it.
    """

    task: str
    seed: int
    data_dir: str | None
    options: dict[str, Any]
    quiet: bool


class LossEnvelope(Request, target="matmulbench.training.referee:envelope"):
    """Train the float64 reference and the perturbed runs; returns the reference's losses and the envelope's width."""

    steps: int
    seconds: float
    rows: int | None


class JudgeParameters(Request, target="matmulbench.training.referee:judge_parameters"):
    """Evaluate parameters from the shared file that comes with it; returns the loss at ``step``, and accuracies."""

    step: int
    plain: bool
    accuracies: bool


class LookAgain(Request, target="matmulbench.training.referee:look_again"):
    """Train a model with plain torch up to a step; returns a note if its parameters alone do not decide the loss there.

    An error says which batch the model itself cannot learn from.
    """

    step: int


class TraceModel(Request, target="matmulbench.training.trace:trace_here"):
    """List the matrix products of one training step of the model that a factory makes; returns rows."""

    model: str
    quiet: bool


# --- on another machine ------------------------------------------------------------------------------


class CarryOut(Request, target="matmulbench.fleet.node:carry_out_here"):
    """Carry out a :class:`~matmulbench.pipeline.Job`; returns what it found, and what cannot be used of it, if any.

    ``done`` are entries of cells that are done already, ``names`` says what the client calls kernels and models.
    """

    job: Any
    done: list[dict[str, Any]]
    names: dict[str, str]
