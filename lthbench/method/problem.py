"""The only object a method sees: the dense network, the training part, a metered trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lthbench import seeds
from lthbench.errors import BadCall, BudgetExceeded, MethodError
from lthbench.io import messages
from lthbench.method import requests, snapshot
from lthbench.method.meter import Work, work_of
from lthbench.method.requests import Refusal, Reply, Request
from lthbench.networks import blocks, families
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.training.augment import fed
from lthbench.training.engines.plain import loss_of, optimiser_of
from lthbench.training.engines.plain import rate as rate_at
from lthbench.training.job import Examples

SHORT = 200  # a loop of at most this many steps is rerun on replay; a longer one is snapshotted
Ask = Callable[[Request, messages.Tensors | None], messages.Message]
R = TypeVar("R")


class Batch(NamedTuple):
    """A network's inputs and the labels: (batch, ...) and (batch,)."""

    x: Tensor
    y: Tensor


@dataclass
class _Shared:
    """What a problem and the same problem at other depths have in common."""

    left: float
    loops: int = 0
    generators: dict[str, torch.Generator] = field(default_factory=dict)


class Problem:
    """One task at one seed, read-only. Costly calls are requests that the harness meters.

    Attributes:
        densities, untrained_densities: the two ladders, sparsest last.
        prunable: names of the prunable tensors.
        shapes: their shapes, by name.
        classes, chance, depth, device, steps (T), rewind_limit: of the task.
    """

    def __init__(
        self,
        task: Task,
        depth: int,
        seed: int,
        train: Examples,
        ask: Ask,
        shared: _Shared | None = None,
    ) -> None:
        self.densities = task.ladder.trained
        self.untrained_densities = task.ladder.untrained
        self.shapes = families.shapes(task.network, depth)
        self.prunable = tuple(self.shapes)
        self.classes = task.data.classes
        self.chance = task.chance
        self.depth = depth
        self.device = train.x.device
        self.steps = task.recipe.steps
        self.rewind_limit = task.search.rewind_limit
        self._task, self._seed, self._train, self._ask = task, seed, train, ask
        self._theta = families.initial(task.network, depth, seed)
        self._shared = shared or _Shared(task.search.budget)

    @property
    def budget(self) -> float:
        """Dense trainings left."""
        return self._shared.left

    @property
    def level(self) -> blocks.Level:
        """Names and shapes of all tensors at this depth, and the blocks that the family repeats."""
        return blocks.level(self._task.network, self.depth)

    def at_depth(self, depth: int) -> Problem:
        """Return the same task, seed and budget with the family's network at another depth.

        What it asks for is charged by that network's dense FLOPs; batches of a loop and random
        examples at least by those of the task's own network, which they could be used for as well.
        """
        spec = self._task.network
        if type(depth) is not int or not families.has_depth(spec, depth):
            told = families.depths_told(spec)
            raise BadCall(f"at_depth({depth!r}): {spec.family} networks {told}")
        return type(self)(self._task, depth, self._seed, self._train, self._ask, self._shared)

    def network(self) -> nn.Module:
        """Return a new copy of the dense network at theta_0, on the problem's device."""
        return families.load(self._task.network, self.depth, self._theta).to(self.device)

    def theta(self, k: int = 0) -> State:
        """Return the canonical dense run at step k (0 to T); charged k / T, once."""
        if k == 0:
            return State(self._theta.tensors(), 0)
        return self._state(requests.Theta(self.depth, int(k)))

    def train(
        self,
        start: int | State = 0,
        masks: Mapping[str, Tensor] | None = None,
        *,
        until: int | None = None,
        order: int = 0,
    ) -> State:
        """Train by the task's recipe from theta_0, theta_k or a state, under masks, to a step.

        Args:
            start: 0 for theta_0, k for theta_k, or a state.
            masks: bool by prunable name; None trains dense.
            until: the step to end at, T by default.
            order: another number gives another data order.
        """
        begin = self.theta(start) if isinstance(start, int) else start
        end = self.steps if until is None else int(until)
        masked = masks is not None
        request = requests.Train(self.depth, begin.step, masked, end, int(order))
        return self._state(request, _tensors(begin, masks))

    def accuracy(self, state: State, masks: Mapping[str, Tensor] | None = None) -> float:
        """Return the state's accuracy on the held-out part (0 to 1); charged."""
        request = requests.Accuracy(self.depth, state.step, masks is not None)
        return self._request(request, requests.Score, _tensors(state, masks))[0].accuracy

    def loop(self, *stateful: object, steps: int, cost: Work = "gradient") -> Iterator[Batch]:
        """Yield batches for a loop of the method's own, charged in full when it begins.

        Args:
            *stateful: everything that the body changes: modules (with their gradients), optimisers,
                generators, tensors, whatever has `state_dict` and `load_state_dict`. A killed run
                continues inside the loop from a snapshot of these; a finished loop of more than 200
                steps is restored and yields nothing. What is not passed is lost.
            steps: the number of batches.
            cost: what a step does with its batch: "forward" alone, a third of a pass forward and
                backward; "gradient", one pass; "hessian", a Hessian or Jacobian product, two.
        """
        work = work_of(cost, "loop")
        self._shared.loops += 1
        number, steps = self._shared.loops, int(steps)
        loop = requests.Loop(self.depth, number, steps, work)
        begin, tensors = self._request(loop, requests.Begin)
        if begin.step:
            snapshot.restore(begin.snapshot, tensors, stateful, self.generator)
            self._shared.loops = begin.loops  # loops begun in the body are not begun again
        return self._steps(loop, begin, stateful)

    def _batches(self, loop: requests.Loop, first: int) -> Iterator[Batch]:
        """Yield the batches of a loop from a step on."""
        order = ("method", "loop", str(loop.number))
        for x, y in fed(self._train, self._task.recipe, self._seed, order, first, loop.steps):
            yield Batch(x, y)

    def _steps(
        self, loop: requests.Loop, begin: requests.Begin, stateful: Sequence[object]
    ) -> Iterator[Batch]:
        """Yield the batches of a loop, and send snapshots after them."""
        saved = time.monotonic()
        for step, batch in enumerate(self._batches(loop, begin.step), start=begin.step + 1):
            yield batch
            late = time.monotonic() - saved > begin.every
            if loop.steps > SHORT and (late or step in begin.at or step == loop.steps):
                tensors: dict[str, Tensor] = {}
                packed = snapshot.take(stateful, self._shared.generators, tensors)
                taken = requests.Snapshot(loop.number, step, self._shared.loops, packed)
                self._request(taken, requests.Done, tensors)
                saved = time.monotonic()

    def examples(self, per_class: int, name: str, *, cost: Work = "gradient") -> Batch:
        """Draw a balanced, fixed set of training examples, charged when it is drawn.

        Args:
            per_class: examples of each class.
            name: of the random stream; equal names give equal examples.
            cost: what is done with them, as in `loop`.
        """
        work = work_of(cost, "examples")
        generator = seeds.generator(self._seed, "method", "examples", name)
        labels = self._train.y.cpu()
        chosen = []
        for label in range(self.classes):
            rows = torch.nonzero(labels == label).flatten()
            order = torch.from_numpy(generator.permutation(len(rows)))
            chosen.append(rows[order[:per_class]])
        rows = torch.cat(chosen)
        self._request(requests.Examples(self.depth, len(rows), str(name), work), requests.Done)
        rows = rows.to(self.device)
        return Batch(self._train.inputs(rows), self._train.labels(rows))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the task's loss of logits (batch, classes) and labels (batch,), in its dtype."""
        return loss_of(outputs, targets, self._task.recipe.label_smoothing)

    def forward(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Compute logits of the network with these weights in place of its own."""
        return torch.func.functional_call(self.network(), dict(weights), (x,))  # type: ignore[no-any-return]

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Compute the synaptic flow R: the summed output for the all-ones input, a scalar.

        The network is made linear and positive: batch norm in evaluation mode and LayerNorm only
        scale, GELU is ReLU, softmax attention is (q k' / n^2) v with n tokens. Charged as one
        example's pass forward and back.

        Args:
            weights: every tensor of the state, non-negative, biases 0; R has their precision.
        """
        self._request(requests.Examples(self.depth, 1, "flow", "gradient"), requests.Done)
        network = self.network()
        return network.flow(weights)  # type: ignore[operator, no-any-return]

    def optimiser(
        self, tensors: Iterable[Tensor], rate: float = 1.0
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Create the task's optimiser and its schedule for a method's own tensors; no decay.

        Call the schedule's `step()` after each of the optimiser's, and pass both to `loop`.

        Args:
            tensors: what the optimiser updates.
            rate: a factor of the recipe's learning rate.
        """
        recipe = self._task.recipe
        group = {"params": list(tensors), "weight_decay": 0.0}
        optimiser = optimiser_of([group], recipe)
        group = optimiser.param_groups[0]
        group["lr"] = rate * recipe.rate
        last = recipe.steps  # the schedule is constant after its end
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda done: rate_at(recipe, min(done + 1, last)) / recipe.rate
        )
        return optimiser, schedule

    def ones(self) -> Tensor:
        """Return the all-ones input, one example; for tokens every token with weight 1 / tokens."""
        return self.network().ones().to(self.device)  # type: ignore[operator, no-any-return]

    def generator(self, name: str) -> torch.Generator:
        """Return the seed's random stream of that name; one object per name, on the CPU."""
        if name not in self._shared.generators:
            generator = torch.Generator()
            generator.manual_seed(seeds.torch_seed(self._seed, "method", name))
            self._shared.generators[name] = generator
        return self._shared.generators[name]

    def _request(
        self, request: Request, kind: type[R], tensors: messages.Tensors | None = None
    ) -> tuple[R, messages.Tensors]:
        """Return the answer to a request, of this kind, and its tensors; raise a refusal."""
        header, content = self._ask(request, tensors)
        reply = messages.read(Reply, header)
        self._shared.left = reply.left
        if isinstance(reply.answer, Refusal):
            kinds = {"budget": BudgetExceeded, "call": MethodError}
            raise kinds[reply.answer.error](reply.answer.message)
        assert isinstance(reply.answer, kind)
        return reply.answer, content

    def _state(self, request: Request, tensors: messages.Tensors | None = None) -> State:
        answer, content = self._request(request, requests.Weights, tensors)
        return State(content, answer.step)


def _tensors(start: State, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    return messages.prefixed("start", dict(start)) | messages.prefixed("mask", masks or {})
