"""Whole-step capture: after a few calls, a function of tensors runs as one CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from longtailed.methods import Method, Progress
    from longtailed.training.options import Capture, FitOptions

Function = Callable[[tuple[Tensor, ...]], object]
Shapes = list[tuple[torch.Size, torch.dtype]]
WARM_UP = 3  # eager calls before a capture: libraries choose kernels and allocate on first use


class Graph(Protocol):
    """What was captured: kernels with fixed arguments at fixed addresses."""

    def capture(
        self, function: Callable[[], object], generators: Sequence[torch.Generator]
    ) -> None:
        """Record what `function` launches, without running it.

        Draws from `generators` follow their seeds at each replay.
        """

    def replay(self) -> None:
        """Run what was recorded once."""


class CudaGraph:
    """A graph captured on the current stream, which must not be the default one."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(
        self, function: Callable[[], object], generators: Sequence[torch.Generator]
    ) -> None:
        """Record what `function` launches, without running it."""
        stream = torch.cuda.current_stream()
        for generator in generators:
            self._graph.register_generator_state(generator)
        try:
            # Other threads (pinned-memory copies of a loader) may go on calling CUDA meanwhile.
            mode = "thread_local"
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode=mode):
                function()
        except Exception:
            torch.cuda.set_stream(stream)
            for generator in (*generators, torch.cuda.default_generators[stream.device.index]):
                # A failed capture leaves generators unable to draw; `Replayed` seeds them again.
                generator.graphsafe_set_state(torch.Generator(stream.device))
            raise

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()


class Replayed:
    """Calls functions of tensors, eagerly at first and then as a replayed graph.

    The function works in place on memory that stays where it is (parameters, buffers, sums) and
    returns nothing; its inputs are tensors on the device, copied into the graph's own at each
    call. It must be the same one at each call (it is not kept, which would make a cycle of
    references), and all it draws must come from `generators`, seeded just before, or the defaults.

    It is called eagerly `WARM_UP` times (these calls count as any other), then captured. Inputs
    of other shapes than the first ones, such as a smaller last batch, are always handled eagerly.

    Whatever the function reads from `progress` on the host is fixed in the graph, so `progress`
    notes it, and the function is captured anew as soon as an answer has changed: when class
    weights begin, say. If the capture fails, all calls are eager, with one warning (or, if
    `required`, a `LongTailedError`) that says why; `what` names the calls in it.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator] = (),
        progress: Progress | None = None,
        required: bool = False,
        what: str = "steps",
    ) -> None:
        self.generators, self.progress = list(generators), progress
        self.required, self.what = required, what
        self.graph: Graph | None = None
        self.shapes: Shapes | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.answers: dict[Any, Any] = {}
        self.eager_calls, self.captures, self.failed = 0, 0, False

    def __call__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        """Call the function eagerly, or replay its graph."""
        if not self._ready(function, inputs):
            function(inputs)
            return
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        assert self.graph is not None
        self.graph.replay()

    def forget(self) -> None:
        """Drop the graph, because what it works on has changed; there will be another."""
        self.graph, self.eager_calls = None, 0

    def _ready(self, function: Function, inputs: tuple[Tensor, ...]) -> bool:
        """Return whether a graph for such inputs exists; capture it once the warm-up is over."""
        shapes = [(tensor.shape, tensor.dtype) for tensor in inputs]
        if self.shapes is None:
            self.shapes = shapes
        if self.failed or shapes != self.shapes:
            return False
        if self.graph is not None and self.progress and not self.progress.agrees(self.answers):
            self.forget()
        if self.graph is None:
            self.eager_calls += 1
            return self.eager_calls > WARM_UP and self._capture(function, inputs)
        return True

    def _capture(self, function: Function, inputs: tuple[Tensor, ...]) -> bool:
        """Capture the function and return whether that worked."""
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        answers = self.progress.watch() if self.progress else {}
        drawing = [*self.generators, torch.default_generator]
        if self.inputs[0].is_cuda:
            drawing.append(torch.cuda.default_generators[self.inputs[0].device.index])
        seeds = [generator.initial_seed() for generator in drawing]
        graph: Graph = CudaGraph()
        try:
            graph.capture(lambda: function(self.inputs), self.generators)
            self.answers = dict(answers)
            if ("step",) in self.answers:
                raise RuntimeError("it reads progress.step, which differs in every step")
        except RuntimeError as error:
            for generator, seed in zip(drawing, seeds, strict=True):
                generator.manual_seed(seed)  # the eager call draws what the capture would have
            self.failed = True
            self._tell(error)
            return False
        self.graph = graph
        self.captures += 1
        return True

    def _tell(self, error: BaseException) -> None:
        cause = error
        while cause.__context__ is not None:  # what stopped the capture, not what its end says
            cause = cause.__context__
        reason = str(cause).strip().partition("\n")[0].rstrip(".")
        if self.required:
            raise LongTailedError(f"{self.what} cannot be captured: {reason}.") from error
        warnings.warn(
            f"{self.what} run one kernel at a time, because they cannot be captured: {reason}.",
            stacklevel=2,
        )


def decide_capture(wanted: Capture, method: Method, fabric: Fabric, options: FitOptions) -> bool:
    """Return whether steps are to be captured; on CUDA, warn if they cannot be.

    Raises `LongTailedError` if capture is "always" and cannot be.
    """
    if wanted == "never":
        return False
    reason = obstacle(method, fabric, options)
    if reason is None:
        return True
    if wanted == "always":
        raise LongTailedError(f"capture=always cannot be: {reason}; use capture=auto.")
    if fabric.device.type == "cuda" and fabric.is_global_zero:
        warnings.warn(f"steps run one kernel at a time: {reason}.", stacklevel=2)
    return False


def obstacle(method: Method, fabric: Fabric, options: FitOptions) -> str | None:
    """Return why steps cannot be captured, or None if they can."""
    if fabric.device.type != "cuda":
        return f"only a CUDA device captures steps, and this run is on {fabric.device.type}"
    if not method.static_shapes:
        return f"the batches of {type(method).__name__} vary in shape"
    if fabric.world_size > 1:
        return "steps of several processes are not captured"
    if options.accumulate > 1:
        return "steps that share an update (accumulate) are not captured"
    return None


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run on a CUDA stream of its own, as a capture needs; elsewhere do nothing."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.current_stream(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        before.wait_stream(stream)
