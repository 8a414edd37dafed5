"""The plain engine: one job after the other, the loop as a paper would write it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import IMAGES, Network, Recipe, matching
from lthbench.training import batch_norm
from lthbench.training.augment import fed
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

EVALUATED_TOGETHER = 2500  # examples in one forward pass: bounded memory, good use of the cache
PIXELS_TOGETHER = 500 * 32 * 32  # likewise for images, whose hidden layers are large
CHECKED_EVERY = 50  # steps between checks of the loss: a diverged run ends early
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def run(
    jobs: Iterable[Job], data: Mapping[int, Examples], evaluation: Evaluation | None = None
) -> Iterator[tuple[str, Result]]:
    """Train each job on its seed's examples and yield (key, result) as it ends.

    Evaluations do not change the training in any bit.
    """
    return one_by_one(_train, jobs, data, evaluation)


def _train(job: Job, data: Examples, due: Looks) -> Result:
    dtype = PRECISIONS[job.recipe.precision]
    network = families.load(job.network, job.depth, job.start).to(data.x.device, dtype)
    mixed = _mixed(job.network, data.x.device, dtype)
    if mixed is not nullcontext or _wide(job.network):
        network = network.to(memory_format=torch.channels_last)
    masks = {name: mask.to(data.x.device) for name, mask in (job.masks or {}).items()}
    optimiser = _optimiser(network, job.recipe)
    masked = _Masked(network, optimiser, masks)
    masked.apply()
    correct: dict[str, list[int]] = {name: [] for sets in due.values() for name in sets}
    predictions: dict[str, Tensor] = {}
    if job.until == job.start.step:
        span = (job.start.step, job.start.step + job.norm_batches)
        shown = fed(data, job.recipe, job.seed, job.order, *span, dtype)
        with mixed():
            batch_norm.estimate(network, (x for x, _ in shown))
        predictions |= _evaluate(network, dtype, mixed, due.get(job.until, {}), correct)
    steps = fed(data, job.recipe, job.seed, job.order, job.start.step, job.until, dtype)
    network.train()
    loss = torch.zeros(())
    for step, (x, y) in enumerate(steps, start=job.start.step + 1):
        _set_rate(optimiser, job.recipe, step)
        with mixed():
            outputs = network(x)
        loss = loss_of(outputs, y, job.recipe.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        masked.apply()
        if step % CHECKED_EVERY == 0 and not math.isfinite(loss.item()):
            break
        if step in due:
            predictions |= _evaluate(network, dtype, mixed, due[step], correct)
    last = {n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}
    state = State(last, job.until)
    counts = {name: torch.tensor(values) for name, values in correct.items()}
    return outcome(job, state, bool(loss.isfinite()), counts, predictions)


def _wide(network: Network) -> bool:
    """Return whether convolutions gain from channels-last memory, on a processor too.

    Not those with few channels, whose strided 1x1 convolutions torch 2.14 (oneDNN) computes wrongly
    in that layout.
    """
    return network.family == "resnet" and network.width % 8 == 0


Mixed = Callable[[], AbstractContextManager[object]]


def _mixed(network: Network, device: torch.device, dtype: torch.dtype) -> Mixed:
    """Return the context of a forward pass: bfloat16 for images on a GPU, else unchanged.

    Arithmetic tasks never use it: a rounded loss would stop decreasing at its precision.
    """
    if device.type != "cuda" or network.family not in IMAGES or dtype != torch.float32:
        return nullcontext
    return lambda: torch.autocast("cuda", dtype=torch.bfloat16)


def loss_of(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Compute the mean cross-entropy of logits (batch, classes), in float32 or better."""
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    return F.cross_entropy(outputs, targets, label_smoothing=smoothing)


class _Masked:
    """Keeps pruned weights, and every optimiser state of their shape, at exactly 0.

    Optimisers create their state in their first step, so it is collected after that one.
    """

    def __init__(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, masks: Mapping[str, Tensor]
    ) -> None:
        named = dict(network.named_parameters())
        self.pairs = [(named[name], mask.to(named[name].dtype)) for name, mask in masks.items()]
        self.optimiser = optimiser
        self.tensors: list[Tensor] = [parameter for parameter, _ in self.pairs]
        self.masks: list[Tensor] = [mask for _, mask in self.pairs]
        self.collected = False

    @torch.no_grad()
    def apply(self) -> None:
        if not self.pairs:
            return
        if not self.collected and self.optimiser.state:
            for parameter, mask in self.pairs:
                for tensor in self.optimiser.state[parameter].values():
                    if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                        self.tensors.append(tensor)
                        self.masks.append(mask)
            self.collected = True
        torch._foreach_mul_(self.tensors, self.masks)


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Create an optimiser; decay applies to the tensors that the recipe lists."""
    named = dict(network.named_parameters())
    decayed = matching(tuple(named), recipe.decayed)
    groups = [
        {"params": [named[n] for n in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
    ]
    return optimiser_of([group for group in groups if group["params"]], recipe)


def optimiser_of(groups: list[dict[str, object]], recipe: Recipe) -> torch.optim.Optimizer:
    """Create the recipe's optimiser for parameter groups that carry their own weight decay."""
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, fused=True)
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.rate, betas=recipe.betas, fused=True)


def rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of the update that ends at this step (1 to T).

    A warm-up reaches the full rate at its last step; the decay after it spans the remaining steps.
    """
    if step <= recipe.warm_up:
        return recipe.rate * step / recipe.warm_up
    done = (step - 1 - recipe.warm_up) / (recipe.steps - recipe.warm_up)
    if recipe.schedule == "linear":
        return recipe.rate * (1 - done)
    if recipe.schedule == "cosine":
        return recipe.rate * (1 + math.cos(math.pi * done)) / 2
    return recipe.rate * 0.1 ** sum(step > drop for drop in recipe.drops)


def _set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate(recipe, step)


def _together(examples: Examples) -> int:
    """Return how many examples one forward pass of an evaluation holds."""
    if examples.x.ndim < 4:
        return EVALUATED_TOGETHER
    return min(EVALUATED_TOGETHER, max(1, PIXELS_TOGETHER // examples.x.shape[1] ** 2))


@torch.no_grad()
def _evaluate(
    network: nn.Module,
    dtype: torch.dtype,
    mixed: Mixed,
    sets: Mapping[str, Examples],
    correct: dict[str, list[int]],
) -> dict[str, Tensor]:
    """Return the network's predictions on every set (uint8); append the counts of correct ones."""
    network.eval()
    answers = {}
    for name, examples in sets.items():
        size = _together(examples)
        starts = range(0, len(examples.y), size)
        inputs = (examples.inputs(slice(i, i + size), dtype) for i in starts)
        with mixed():
            parts = [network(x).argmax(1).to(torch.uint8) for x in inputs]
        answers[name] = torch.cat(parts).cpu()
        correct[name].append(count_correct(answers[name], examples))
    network.train()
    return answers
