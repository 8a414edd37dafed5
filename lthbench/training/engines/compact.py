"""The compact engine: multilayer perceptrons on a CPU, the kept weights alone.

Forward and backward are written out, which saves a small network most of its time, and a layer that
is sparse enough is a sparse matrix: its products, its gradient and its optimiser's state cover the
kept weights and nothing else. A unit without inputs still outputs its bias.

All trained weights lie in one vector, so that an optimiser's step is one pass over it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Network, Recipe, matching
from lthbench.training.augment import fed
from lthbench.training.engines.plain import (
    CHECKED_EVERY,
    EVALUATED_TOGETHER,
    PRECISIONS,
    loss_of,
    rate,
)
from lthbench.training.job import (
    Evaluation,
    Examples,
    Job,
    Looks,
    Result,
    count_correct,
    one_by_one,
    outcome,
)

# A layer is sparse from where its products are faster that way, measured on whole steps
# (`python -m tests.speed.engines`): the cost of a kept weight, in weights of a full matrix, and the
# fixed cost of a sparse product, likewise.
KEPT, CALL = 4.0, 20_000


def able(network: Network) -> bool:
    """Return whether this engine can train such networks; it supports no pruned biases."""
    pruned = (name for name in network.prunable if name.endswith("bias"))
    return network.family in ("mlp", "pair-mlp") and not any(pruned)


def run(
    jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None = None
) -> Iterator[tuple[str, Result]]:
    """Train each job on its seed's examples and yield (key, result) as it ends."""
    return one_by_one(_train, jobs, data, evaluation)


@torch.no_grad()
def _train(job: Job, data: Examples, due: Looks) -> Result:
    dtype = PRECISIONS[job.recipe.precision]
    network = _Network(job, dtype)
    update = _Update(network, job.recipe)
    correct: dict[str, list[int]] = {name: [] for sets in due.values() for name in sets}
    predictions: dict[str, Tensor] = {}
    if job.until == job.start.step:
        predictions |= _evaluate(network, dtype, due.get(job.until, {}), correct)
    smoothing, loss = job.recipe.label_smoothing, torch.zeros(())
    steps = fed(data, job.recipe, job.seed, job.order, job.start.step, job.until, dtype)
    for step, (x, y) in enumerate(steps, start=job.start.step + 1):
        read, outputs = network.forward(x.flatten(1))
        if step % CHECKED_EVERY == 0 or step == job.until:
            loss = loss_of(outputs[-1], y, smoothing)
        network.backward(read, outputs, _loss_gradient(outputs[-1], y, smoothing))
        update(rate(job.recipe, step))
        if step % CHECKED_EVERY == 0 and not math.isfinite(loss.item()):
            break
        if step in due:
            predictions |= _evaluate(network, dtype, due[step], correct)
    state = State(network.state(), job.until)
    counts = {name: torch.tensor(values) for name, values in correct.items()}
    return outcome(job, state, bool(loss.isfinite()), counts, predictions)


def _loss_gradient(logits: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """Return the gradient of the mean cross-entropy with respect to logits (batch, classes)."""
    gradient = logits.softmax(1)
    if smoothing:
        gradient -= smoothing / logits.shape[1]
    ones = gradient.new_full((len(y), 1), smoothing - 1)
    return gradient.scatter_add_(1, y[:, None], ones).div_(len(y))


class _Held(NamedTuple):
    """A trained tensor and its gradient: views of the network's two vectors."""

    values: Tensor
    gradient: Tensor


@dataclass
class _Full:
    """A layer stored as a matrix (out, in); a mask in its dtype keeps pruned gradients at 0."""

    name: str
    weight: _Held
    bias: _Held
    mask: Tensor | None

    def reads(self, x: Tensor) -> Tensor:
        """Return an input (batch, in) as forward and backward need it: unchanged."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in) to (batch, out)."""
        return torch.addmm(self.bias.values, x, self.weight.values.t())

    def backward(self, x: Tensor, gradient: Tensor, wanted: bool) -> Tensor | None:
        """Store the gradients of weight and bias; return that of x (batch, in) if it is wanted."""
        torch.sum(gradient, 0, out=self.bias.gradient)
        torch.mm(gradient.t(), x, out=self.weight.gradient)
        _pruned(self.weight.gradient, self.mask)
        return gradient @ self.weight.values if wanted else None

    def tensors(self) -> dict[str, Tensor]:
        """Return weight and bias by name."""
        return {f"{self.name}.weight": self.weight.values, f"{self.name}.bias": self.bias.values}


class _Sparse:
    """A layer's kept weights as sparse rows: their values are parts of the network's vectors."""

    def __init__(self, name: str, weight: _Held, bias: _Held, mask: Tensor) -> None:
        self.name, self.kept, self.bias = name, weight, bias
        row, column = mask.nonzero(as_tuple=True)
        self.weight = _csr(row, column, weight.values, mask.shape)
        self.gradient = _csr(row, column, weight.gradient, mask.shape)
        self.places = torch.argsort(column, stable=True)  # of the values, by columns
        by_columns = column[self.places], row[self.places]
        self.moved = torch.empty_like(weight.values)
        self.transposed = _csr(*by_columns, self.moved, mask.shape[::-1])

    def reads(self, x: Tensor) -> Tensor:
        """Transpose an input to (in, batch), as sparse products need it."""
        return x.t().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Map (in, batch) to (batch, out)."""
        return (self.weight @ x).add_(self.bias.values[:, None]).t()

    def backward(self, x: Tensor, gradient: Tensor, wanted: bool) -> Tensor | None:
        """Store and return gradients like a full layer, with x (in, batch)."""
        torch.sum(gradient, 0, out=self.bias.gradient)
        gradient, into = gradient.t().contiguous(), self.gradient
        torch.sparse.sampled_addmm(into, gradient, x.t(), beta=0.0, out=into)
        if not wanted:
            return None
        torch.index_select(self.kept.values, 0, self.places, out=self.moved)
        return (self.transposed @ gradient).t()

    def tensors(self) -> dict[str, Tensor]:
        """Return weight and bias by name."""
        weight = self.weight.to_dense()
        return {f"{self.name}.weight": weight, f"{self.name}.bias": self.bias.values}


@dataclass
class _Pairs:
    """Two tokens with one embedding table, concatenated, and the layer that reads them.

    The result is the sum of each token's contribution in its position, and many pairs share few
    tokens: so each token is multiplied only once. The masks are those of table and weight.
    """

    name: str
    table: _Held
    weight: _Held
    bias: _Held
    masks: tuple[Tensor | None, Tensor | None]

    def reads(self, x: Tensor) -> Tensor:
        """Return tokens (batch, 2) unchanged."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 2) tokens to (batch, out)."""
        left, right = self.weight.values.chunk(2, dim=1)
        lefts = torch.addmm(self.bias.values, self.table.values, left.t())
        rights = self.table.values @ right.t()
        return lefts.index_select(0, x[:, 0]).add_(rights.index_select(0, x[:, 1]))

    def backward(self, x: Tensor, gradient: Tensor, wanted: bool) -> None:
        """Store the gradients of table, weight and bias; tokens have none."""
        assert not wanted
        torch.sum(gradient, 0, out=self.bias.gradient)
        table = self.table.values
        into = gradient.new_zeros(2, len(table), gradient.shape[1])
        lefts = into[0].index_add_(0, x[:, 0], gradient)
        rights = into[1].index_add_(0, x[:, 1], gradient)
        left, right = self.weight.values.chunk(2, dim=1)
        self.weight.gradient.copy_(torch.cat([lefts.t() @ table, rights.t() @ table], 1))
        torch.mm(lefts, left, out=self.table.gradient).addmm_(rights, right)
        for held, mask in zip((self.table, self.weight), self.masks, strict=True):
            _pruned(held.gradient, mask)

    def tensors(self) -> dict[str, Tensor]:
        """Return table, weight and bias by name."""
        read = {f"{self.name}.weight": self.weight.values, f"{self.name}.bias": self.bias.values}
        return {"embed.weight": self.table.values, **read}


def _pruned(gradient: Tensor, mask: Tensor | None) -> None:
    if mask is not None:
        gradient *= mask


def _csr(row: Tensor, column: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Build a sparse matrix that shares these values: changing them changes the matrix."""
    ends = torch.bincount(row, minlength=shape[0]).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends]).int()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts, column.int(), values, tuple(shape), check_invariants=False
        )


class _Network:
    """A chain of layers with ReLU between them, and the vectors of weights and gradients."""

    def __init__(self, job: Job, dtype: torch.dtype) -> None:
        start, masks = job.start.tensors(), dict(job.masks or {})
        # A state received over a pipe has its tensors in another order.
        self.order = list(families.build(job.network, job.depth).state_dict())
        names = [n.removesuffix(".bias") for n in self.order if n.endswith(".bias")]
        decayed = set(matching(tuple(self.order), job.recipe.decayed))
        pairs = job.network.family == "pair-mlp"
        readers = {"embed.weight", f"{names[0]}.weight"} if pairs else set()
        thin = {n for n, mask in masks.items() if n not in readers and _thin(mask)}
        parts: dict[str, Tensor] = {}
        for name, tensor in start.items():
            tensor = tensor.to(dtype)
            if name in thin:
                tensor = tensor[masks[name]]
            elif name in masks:
                tensor = tensor * masks[name]
            parts[name] = tensor
        order = sorted(self.order, key=lambda name: name not in decayed)  # decayed ones come first
        self.values = torch.cat([parts[name].reshape(-1) for name in order])
        self.gradients = torch.zeros_like(self.values)
        self.decayed = sum(parts[name].numel() for name in decayed)
        ends = list(accumulate((parts[name].numel() for name in order), initial=0))
        places = dict(zip(order, pairwise(ends), strict=True))

        def held(name: str) -> _Held:
            here, shape = slice(*places[name]), parts[name].shape
            return _Held(self.values[here].view(shape), self.gradients[here].view(shape))

        def factors(name: str) -> Tensor | None:
            return masks[name].to(dtype) if name in masks else None

        self.layers: list[_Full | _Sparse | _Pairs] = []
        for name in names:
            weight, bias = f"{name}.weight", held(f"{name}.bias")
            if weight in readers:
                both = factors("embed.weight"), factors(weight)
                table = held("embed.weight")
                self.layers.append(_Pairs(name, table, held(weight), bias, both))
            elif weight in thin:
                self.layers.append(_Sparse(name, held(weight), bias, masks[weight]))
            else:
                self.layers.append(_Full(name, held(weight), bias, factors(weight)))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return each layer's input and output (batch, out); the last output is the logits."""
        read, outputs = [], []
        for number, layer in enumerate(self.layers):
            read.append(layer.reads(x))
            x = layer.forward(read[-1])
            if number + 1 < len(self.layers):
                x = x.clamp_min_(0)
            outputs.append(x)
        return read, outputs

    def backward(self, read: Sequence[Tensor], outputs: Sequence[Tensor], gradient: Tensor) -> None:
        """Store all gradients, given a forward pass and the gradient of its logits."""
        for number in reversed(range(len(self.layers))):
            passed = self.layers[number].backward(read[number], gradient, number > 0)
            if passed is not None:  # a unit with output 0 passes no gradient back
                gradient = torch.ops.aten.threshold_backward(passed, outputs[number - 1], 0)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of every tensor by name, in the module's order."""
        found = {n: tensor for layer in self.layers for n, tensor in layer.tensors().items()}
        return {name: found[name].clone() for name in self.order}


def _thin(mask: Tensor) -> bool:
    """Return whether a layer is faster as a sparse matrix."""
    return int(mask.count_nonzero()) * KEPT + CALL < mask.numel()


class _Update:
    """The recipe's optimiser over a network's one vector, by torch's fused kernels.

    A pruned weight of a full matrix has no gradient, and it and its state are 0: they stay 0.
    """

    def __init__(self, network: _Network, recipe: Recipe) -> None:
        cut = network.decayed
        spans = [(slice(0, cut), recipe.weight_decay), (slice(cut, None), 0.0)]
        if not recipe.weight_decay:
            spans = [(slice(None), 0.0)]
        self.recipe = recipe
        self.parts = [
            (network.values[span], network.gradients[span], decay)
            for span, decay in spans
            if len(network.values[span])
        ]
        self.first = [torch.zeros_like(values) for values, _, _ in self.parts]
        self.second = [torch.zeros_like(values) for values, _, _ in self.parts]
        self.steps = torch.zeros(())

    def __call__(self, rate: float) -> None:
        recipe = self.recipe
        if recipe.optimiser == "sgd":
            first_step = not self.steps
            self.steps += 1
            for (values, gradients, decay), momentum in zip(self.parts, self.first, strict=True):
                torch._fused_sgd_(
                    [values], [gradients], [momentum] if recipe.momentum else [],
                    lr=rate, weight_decay=decay, momentum=recipe.momentum, dampening=0.0,
                    nesterov=False, maximize=False, is_first_step=bool(first_step),
                )  # fmt: skip
            return
        self.steps += 1
        update = torch._fused_adam_ if recipe.optimiser == "adam" else torch._fused_adamw_
        for (values, gradients, decay), first, second in zip(
            self.parts, self.first, self.second, strict=True
        ):
            update(
                [values], [gradients], [first], [second], [], [self.steps],
                lr=rate, beta1=recipe.betas[0], beta2=recipe.betas[1], weight_decay=decay,
                eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip


def _evaluate(
    network: _Network,
    dtype: torch.dtype,
    sets: Mapping[str, Examples],
    correct: dict[str, list[int]],
) -> dict[str, Tensor]:
    """Return the network's predictions on every set (uint8); append the counts of correct ones."""
    answers = {}
    for name, examples in sets.items():
        starts = range(0, len(examples.y), EVALUATED_TOGETHER)
        inputs = (examples.inputs(slice(i, i + EVALUATED_TOGETHER), dtype) for i in starts)
        parts = [network.forward(x.flatten(1))[1][-1].argmax(1).to(torch.uint8) for x in inputs]
        answers[name] = torch.cat(parts)
        correct[name].append(count_correct(answers[name], examples))
    return answers
