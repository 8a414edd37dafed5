"""Networks of one shape side by side: weights with a leading job axis, and their gradients.

There are two ways of computing gradients. "vmap" makes one network of all jobs, with batched matrix
products and grouped convolutions. "unrolled" runs ordinary networks one after the other, which on a
GPU costs nothing but the kernels, because the whole step is one captured graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Network
from lthbench.training.engines.plain import loss_of

Way = Literal["vmap", "unrolled"]
ALIGNED = 64  # weights: every tensor starts at a multiple, where a GPU reads fastest
STREAMS = 4  # GPU streams that unrolled jobs use in turn
WARM = 3  # steps before a capture, in which libraries choose kernels and allocate memory


class Stack:
    """The networks of several jobs.

    Attributes:
        weights, gradients: every parameter of a job in one row, (jobs, size).
        buffers: the rest of the state by name, (jobs, …); updated by forward passes in training.
        module: defines the forward pass; its mode is that of all jobs.
    """

    def __init__(
        self,
        network: Network,
        depth: int,
        starts: Sequence[State],
        like: Tensor,
        way: Way,
        mixed: bool = False,
    ) -> None:
        """Copy the start states into rows.

        Args:
            network: the family and sizes.
            depth: of the network.
            starts: the state that each job starts from.
            like: has the device and dtype of the weights.
            way: of computing gradients.
            mixed: images on a GPU: bfloat16 in the forward pass, channels last in memory.
        """
        self.module = families.build(network, depth).train()
        self.way, self.jobs, self.mixed = way, len(starts), mixed
        self.shapes = {n: tuple(p.shape) for n, p in self.module.named_parameters()}
        self.spans, size = _spans(self.shapes)
        self.weights = like.new_zeros(self.jobs, size)
        self.gradients = torch.zeros_like(self.weights)
        named = [name for name, _ in self.module.named_buffers()]
        self.buffers = {
            name: torch.stack([start[name] for start in starts]).to(self.weights) for name in named
        }
        for name, places in self.named(self.weights).items():
            places.copy_(torch.stack([start[name] for start in starts]))
        self.leaves = {n: t.detach().requires_grad_() for n, t in self.named(self.weights).items()}
        self._targets = self.named(self.gradients)
        self._alone = [self._one(j) for j in range(self.jobs)] if way == "unrolled" else []
        on_gpu = like.is_cuda and way == "unrolled"
        self._streams = [stream_on(like.device) for _ in range(STREAMS if on_gpu else 0)]

    def _one(self, j: int) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
        """Return one job's leaves, its buffers, and where its gradients go."""
        leaves = {n: t[j].detach().requires_grad_() for n, t in self.leaves.items()}
        buffers = {n: t[j] for n, t in self.buffers.items()}
        return leaves, buffers, [t[j] for t in self._targets.values()]

    def named(self, rows: Tensor) -> dict[str, Tensor]:
        """Return views (jobs, …) of rows (jobs, size), by the parameters' names."""
        found = {}
        for name, (start, end) in self.spans.items():
            shape, part = self.shapes[name], rows[:, start:end]
            if self.mixed and len(shape) == 4:  # a convolution wants its channels last
                last = (shape[0], shape[2], shape[3], shape[1])
                found[name] = part.view(len(rows), *last).movedim(-1, 2)
            else:
                found[name] = part.view(len(rows), *shape)
        return found

    def state(self, j: int, step: int) -> State:
        """Return a copy of one job's state."""
        tensors = {n: t[0] for n, t in self.named(self.weights[j : j + 1].cpu()).items()}
        tensors |= {n: t[j].cpu() for n, t in self.buffers.items()}
        kept = torch.contiguous_format
        order = self.module.state_dict()
        return State({n: tensors[n].clone(memory_format=kept) for n in order}, step)

    def outputs(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Compute logits (jobs, n, classes) of inputs (jobs, n, …), for all jobs or some rows."""
        if self.way == "unrolled":
            every = range(self.jobs) if rows is None else rows
            return torch.stack([self._output(j, x[i]) for i, j in enumerate(every)])
        named = self.leaves | self.buffers
        if rows is not None:
            named = {name: tensor[list(rows)] for name, tensor in named.items()}
        with self._precision():
            logits: Tensor = vmap(self._call)(named, x)
        return logits

    def losses(self, x: Tensor, y: Tensor, smoothing: float) -> Tensor:
        """Compute each job's mean loss on its own batch (jobs,); gradients go to `gradients`."""
        if self.way == "unrolled":
            return self._unrolled(x, y, smoothing)
        logits = self.outputs(x).flatten(0, 1)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        each = F.cross_entropy(logits, y.flatten(), label_smoothing=smoothing, reduction="none")
        found = each.view_as(y).mean(1)
        # A job's weights affect its own loss alone: the gradient of the sum is each one's own.
        gradients = torch.autograd.grad(found.sum(), list(self.leaves.values()))
        torch._foreach_copy_(list(self._targets.values()), gradients)
        return found.detach()

    def _unrolled(self, x: Tensor, y: Tensor, smoothing: float) -> Tensor:
        found = self.weights.new_zeros(self.jobs)
        with _in_turn(self._streams) as stream_of:
            for j, (leaves, _, targets) in enumerate(self._alone):
                with stream_of(j):
                    loss = loss_of(self._output(j, x[j]), y[j], smoothing)
                    gradients = torch.autograd.grad(loss, list(leaves.values()))
                    torch._foreach_copy_(targets, gradients)
                    found[j] = loss.detach()
        return found

    def _output(self, j: int, x: Tensor) -> Tensor:
        leaves, buffers, _ = self._alone[j]
        with self._precision():
            return self._call(leaves | buffers, x)

    def _call(self, named: Mapping[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.module, dict(named), (x,))
        return logits

    def _precision(self) -> AbstractContextManager[object]:
        if not self.mixed:
            return nullcontext()
        if self.way == "vmap":
            return Rounded()
        # A graph cannot be captured with weights that were rounded outside it.
        return torch.autocast(self.weights.device.type, torch.bfloat16, cache_enabled=False)


class Seen(nn.Module):
    """All networks of a stack as one module, in which `batch_norm.estimate` finds the norms."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.module, self.stack = stack.module, stack

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (jobs, n, …) to logits (jobs, n, classes)."""
        return self.stack.outputs(x)


def _spans(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, tuple[int, int]], int]:
    """Return where each tensor begins and ends in a row, and the row's size."""
    spans, size = {}, 0
    for name, shape in shapes.items():
        spans[name] = size, size + math.prod(shape)
        size += -(-math.prod(shape) // ALIGNED) * ALIGNED
    return spans, size


class Rounded(TorchFunctionMode):
    """Autocast's rounding, also under vmap: products in bfloat16, sums in float32.

    Autocast misses the convolutions and biased layers that vmap turns into batched ones.
    """

    PRODUCTS = frozenset(
        [F.linear, F.conv2d, torch.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__]
    )
    SUMS = frozenset(
        [F.softmax, torch.softmax, Tensor.softmax, F.layer_norm, torch.layer_norm, F.batch_norm]
    )

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if func in self.PRODUCTS or func in self.SUMS:
            dtype = torch.bfloat16 if func in self.PRODUCTS else torch.float32
            args = tuple(_rounded(value, dtype) for value in args)
            kwargs = {name: _rounded(value, dtype) for name, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _rounded(value: object, dtype: torch.dtype) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value


@contextmanager
def _in_turn(
    streams: Sequence[torch.cuda.Stream],
) -> Iterator[Callable[[int], AbstractContextManager[object]]]:
    """Yield the stream of each job; streams start after earlier work, later work waits for all."""
    if not streams:
        yield lambda _: nullcontext()
        return
    current = torch.cuda.current_stream(streams[0].device)
    for stream in streams:
        stream.wait_stream(current)
    try:
        yield lambda j: torch.cuda.stream(streams[j % len(streams)])
    finally:  # a failed capture must not leave streams that nobody waits for
        for stream in streams:
            current.wait_stream(stream)


def stream_on(device: torch.device) -> torch.cuda.Stream:
    """Create a new stream on a GPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def captured(
    step: Callable[[], None], changing: Sequence[Tensor]
) -> tuple[Callable[[], None], str]:
    """Capture a step on a GPU as one graph; if that fails, return the step itself, and why.

    Args:
        step: takes one step, with no arguments.
        changing: everything that the step changes and a later step reads; restored on return.
    """
    device = changing[0].device
    with torch.cuda.device(device):  # a graph is captured on the current device
        before = [tensor.clone() for tensor in changing]
        current, side = torch.cuda.current_stream(device), stream_on(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM):
                step()
        current.wait_stream(side)
        for tensor, old in zip(changing, before, strict=True):
            tensor.copy_(old)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=side):
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return step, f"no graph of a step could be captured ({reason(error)}); it goes slower"
    return graph.replay, ""


def reason(error: Exception) -> str:
    """Return the first sentence of an error."""
    return next(iter(str(error).splitlines()), type(error).__name__).partition(". ")[0]
