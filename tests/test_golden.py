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

TRAINED = {  # of files; seeds 0 and 1000: fold 0
    "conv4-cifar10": 45_000,
    "lenet300-mnist": 55_000,
    "mlp-digits": 1_293,
    "resnet20-cifar10": 45_000,
    "resnet20-cifar10-160": 45_000,
    "vit-tiny-cifar10": 45_000,
    "vit-tiny-imagenette": 8_522,
}

# Of theta_0, and of the rows of the canonical dense run's first three steps.
GOLDEN = {
    ("conv4-cifar10", 0): (
        "b98097dc4d8ae861c396db4570d2278f3aab1d6c16860b289c7396b36c2c2127",
        "055fcf5a68ff24cf73d29c8dfc7dbd016d2080564acee9484110d634372c0e82",
    ),
    ("conv4-cifar10", 1000): (
        "64f50f9467002b6c88417afecb4993235ea1f4418644341d48186013d6f2bada",
        "4463b4f4d584b93ab9d662e09e2df9341c489f8f70be8f2df53c0817a3b6bbc5",
    ),
    ("resnet20-cifar10", 0): (
        "9b817edb2a2b37ec51ff11d366594aaf38590d6c2995f5218f8eccff2576eea7",
        "1f28181e4ec58e624c30107e6053e15734a9f067e0c930251cd7eed7dcf79247",
    ),
    ("resnet20-cifar10", 1000): (
        "3dac6200b8fb39381eb46a2d0c49e76298bc9ddc4473adc7011a548b613c2ece",
        "260933b2803c482f9bac512edb5771788a2567d46fa82a2b36931b59b439fbe0",
    ),
    ("resnet20-cifar10-160", 0): (
        "9b817edb2a2b37ec51ff11d366594aaf38590d6c2995f5218f8eccff2576eea7",
        "1f28181e4ec58e624c30107e6053e15734a9f067e0c930251cd7eed7dcf79247",
    ),
    ("resnet20-cifar10-160", 1000): (
        "3dac6200b8fb39381eb46a2d0c49e76298bc9ddc4473adc7011a548b613c2ece",
        "260933b2803c482f9bac512edb5771788a2567d46fa82a2b36931b59b439fbe0",
    ),
    ("transformer-modadd113", 0): (
        "1d845ccbebd7d6102dbf0a7d6cc30a1f77eac14e379f32c05d474c75237f9212",
        "7ef900ca224a728cc606142dd993d06e7d513013ff19378df52289dee04d4969",
    ),
    ("transformer-modadd113", 1000): (
        "906b23a8989921f0b4a52a6f5157fa3f86309eb836c75e8656c2bb0503fe1f24",
        "8c99b9605e59babb9fd4876e913ece484ff0a5c5f1ffa5e7e3f3b8733d515bd1",
    ),
    ("vit-tiny-cifar10", 0): (
        "77743efa9d34069398797c3f880f65e75450af995414e8832720f0b81ec0d270",
        "af84f04080e5462bc4516e21e97024776d479cc49ece0265a3957199d840e7cf",
    ),
    ("vit-tiny-cifar10", 1000): (
        "93e662e8c7e18a224af8ef8c04a175928ab468cab1312dcfb94475d4bf10b90d",
        "796532a480b186952aa19a9dd18f474231a8244dfb3e585b55cbf165a2ad1c0a",
    ),
    ("vit-tiny-imagenette", 0): (
        "b98cd5e9e21c3a0ea34139448d7be7cdfb629daab2a957819b7e6e0278673112",
        "c19a3b10b2437c7f49a3be1c57b599e5a569438bd75be1549504897ca13a2ba7",
    ),
    ("vit-tiny-imagenette", 1000): (
        "d98999feddce36a2510653b98467cfdd7125b3ce78db76d259517de2e90f0639",
        "bae0588ba143057d292a06724994a6ad54b66c90b4d6733883d6bd4fe764b459",
    ),
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
    (
        "transformer-modadd113",
        0,
    ): "39628f356050431add157f8c8bc72a956117ec75d7ab43eff761a84a28743cc7",
    (
        "transformer-modadd113",
        1000,
    ): "664ef98f5c8f1f57f6e094ca4e9ddea94b024063e493c382a199ffcbf606dcfd",
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
