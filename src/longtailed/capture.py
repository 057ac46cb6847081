"""Whole-step capture: after a few calls a function runs as one CUDA graph, at one launch a call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from longtailed.job import FitOptions
    from longtailed.methods import Method, Progress

Capture = Literal["auto", "always", "never"]
WARM_UP = 3  # eager calls before a capture: libraries choose kernels and allocate on first use


class Graph(Protocol):
    """What was captured: kernels with fixed arguments at fixed addresses."""

    def capture(self, function: Callable[[], None], generators: Sequence[torch.Generator]) -> None:
        """Record what `function` launches, without running it.

        Draws from `generators` follow their seeds at each replay.
        """

    def replay(self) -> None:
        """Run what was recorded once."""


class CudaGraph:
    """A graph captured on the current stream, which must not be the default one."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], None], generators: Sequence[torch.Generator]) -> None:
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
                # A failed capture leaves generators in a state in which they cannot draw.
                generator.graphsafe_set_state(torch.Generator(stream.device))
            raise

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()


class Replayed:
    """Calls `function(inputs)`, eagerly at first and then as a replayed graph.

    The function works in place on memory that stays where it is (parameters, buffers, sums) and
    returns nothing; `inputs` are tensors on the device, copied into the graph's own at each call.
    It is called eagerly `WARM_UP` times (these calls count as any other), then captured. Inputs
    of other shapes than the captured ones, such as a smaller last batch, are handled eagerly.

    Whatever `function` reads from `progress` on the host is fixed in the graph, so `progress`
    notes it, and the function is captured anew as soon as an answer has changed: when class
    weights begin, say. If the capture fails, all calls are eager, with one warning (or, if
    `required`, a `LongTailedError`) that says why.
    """

    def __init__(
        self,
        function: Callable[[tuple[Tensor, ...]], None],
        generators: Sequence[torch.Generator] = (),
        progress: Progress | None = None,
        required: bool = False,
    ) -> None:
        self.function, self.generators, self.progress = function, list(generators), progress
        self.required = required
        self.graph: Graph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.answers: dict[Any, Any] = {}
        self.eager_calls, self.captures, self.failed = 0, 0, False

    def __call__(self, inputs: tuple[Tensor, ...]) -> None:
        """Call the function, one way or the other."""
        if not self._ready(inputs):
            self.function(inputs)
            return
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        assert self.graph is not None
        self.graph.replay()

    def _ready(self, inputs: tuple[Tensor, ...]) -> bool:
        """Return whether there is a graph for such inputs, after capturing it if it is time."""
        if self.graph is not None and self.progress and not self.progress.agrees(self.answers):
            self.graph, self.eager_calls = None, 0
        if self.graph is None:
            self.eager_calls += 1
            if self.failed or self.eager_calls <= WARM_UP or not self._capture(inputs):
                return False
        return self._shapes(inputs) == self._shapes(self.inputs)

    @staticmethod
    def _shapes(inputs: tuple[Tensor, ...]) -> list[tuple[Any, ...]]:
        return [(tensor.shape, tensor.dtype) for tensor in inputs]

    def _capture(self, inputs: tuple[Tensor, ...]) -> bool:
        """Capture the function and return whether that worked."""
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        answers = self.progress.watch() if self.progress else {}
        graph: Graph = CudaGraph()
        try:
            graph.capture(lambda: self.function(self.inputs), self.generators)
            self.answers = dict(answers)
            if ("step",) in self.answers:
                raise RuntimeError("it reads progress.step, which differs in every step")
        except (RuntimeError, AttributeError) as error:  # what torch raises for a failed capture
            self.failed = True
            reason = " ".join(str(error).split()).rstrip(".")[:200]
            if self.required:
                raise LongTailedError(f"a step cannot be captured: {reason}.") from error
            warnings.warn(
                f"steps run one kernel at a time, because a step could not be captured: {reason}.",
                stacklevel=2,
            )
            return False
        self.graph = graph
        self.captures += 1
        return True


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
    if fabric.device.type == "cuda":
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
