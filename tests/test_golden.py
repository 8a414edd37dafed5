"""Frozen: the weights every shipped task begins with, its first order, its generated examples.

Every published record rests on them. A change here is a change of protocol: a new version.
"""

from __future__ import annotations

import pytest
import torch

from lthbench import data, networks
from lthbench.engine.order import batches
from lthbench.states import digest
from lthbench.task import load_task, task_names

TRAINED = {"lenet300-mnist": 55_000, "mlp-digits": 1_293}  # of files; seeds 0 and 1000: fold 0

# Of theta_0, and of the rows of the canonical dense run's first three steps.
GOLDEN = {
    ("lenet300-mnist", 0): (
        "d62c7ab62f09c7e148676aff63fb0d9b9960b98a59ed992f79f4bf00f97c5d8c",
        "210ddf9bf40493fd8bd3479ef3ac3feecd3d99061482a19994419ec23c184a00",
    ),
    ("lenet300-mnist", 1000): (
        "767647ee2b1a2cc7198f4baa6742d7d65900092599e3218b9b44bfd1dacd6499",
        "69e8780fe6cc25edfb334a0d45eca3cdb8d07a9c7d4a1cbac79d2751cf090983",
    ),
    ("mlp-digits", 0): (
        "537b46253de4bfbc300f3a6e54e930a7e105adcebb1238829435e1c9cb8342f8",
        "f27d647d905642d604a30ad1dd988155cf3df7900b66238c30282f08605bf586",
    ),
    ("mlp-digits", 1000): (
        "5e1ab30c8821db3b2871f7f73356bbc39fafe40c9242e53d766c1700a3e103c2",
        "f0fe451fea647af46c51d74b459be5751e16933e317d01d160a17ceda116b6ab",
    ),
    ("mlp-modadd59", 0): (
        "8b9bfedc91b3b1f9104ab84d359e56dbcd2e5ce0e166b8cb1cc844e0132a36e4",
        "515e772dd27a619e417132dec7a6675ed6fc756ae57eb67e7f219648577b3884",
    ),
    ("mlp-modadd59", 1000): (
        "c07df0403128d13261321e5d9a6b4c310b21f72dc809c31e045e00257ac3f40d",
        "3ab25410d4b6d00fae26a6bfd1d8c6f99a97ffa49d810e2f855d0fce4a6dbf6f",
    ),
    ("transformer-modadd59", 0): (
        "8672b4f68cec5b9b8498e8e21e4a6a3d20a80059b1610d793c19b6fb29e69a02",
        "ed3e99cf793e7b6a8c14c3079c3eda5eed6a292ae9d274b13b231801baaf7d15",
    ),
    ("transformer-modadd59", 1000): (
        "eccc2e4da52c9d587e5ba00b254b38f1196a95d5a18977536635db8f4c24bbfe",
        "f9ca1b579e3f78699b67b301b767fd774254928b919f68a539623d4533e1ee23",
    ),
}
# Of the training, held-out and test pairs together.
SUMS = {
    ("mlp-modadd59", 0): "eb7fde00e90501cf8ed1e78deb4281f124e3eecc5b96961f57f66369726bbfbe",
    ("mlp-modadd59", 1000): "bf9f3930d03ad469aafb882f378ca7f949a3515b375ac35cc674e10d02cd2446",
    ("transformer-modadd59", 0): "3c02097111717e311fe4be9c0ec16eb30ae351e9bc665e7cc83ddedf94ad6b55",
    (
        "transformer-modadd59",
        1000,
    ): "dd51a2e4cb2dec04a6c90c4965dc3058fcb7966854cd5cb51800c1ab61b925fd",
}


def test_every_shipped_task_is_frozen() -> None:
    assert set(GOLDEN) == {(name, seed) for name in task_names() for seed in (0, 1000)}


@pytest.mark.parametrize(("name", "seed"), sorted(GOLDEN))
def test_initial_weights(name: str, seed: int) -> None:
    task = load_task(name)
    assert networks.initial(task.network, task.network.depth, seed).digest == GOLDEN[name, seed][0]


@pytest.mark.parametrize(("name", "seed"), sorted(GOLDEN))
def test_first_order(name: str, seed: int) -> None:
    task = load_task(name)
    count = TRAINED.get(name) or len(data.search(task, seed).train.y)
    rows = batches(task.recipe, count, seed, ("data", "dense", "0"), 0, 3)
    assert digest({str(n): chosen for n, chosen in enumerate(rows)}, 0) == GOLDEN[name, seed][1]


@pytest.mark.parametrize(("name", "seed"), sorted(SUMS))
def test_generated_examples(name: str, seed: int) -> None:
    parts = data.modular_addition(load_task(name), seed)
    arrays = {
        f"{n}{key}": torch.from_numpy(getattr(p, key)) for n, p in enumerate(parts) for key in "xy"
    }
    assert digest(arrays, 0) == SUMS[name, seed]
