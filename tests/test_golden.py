"""Frozen: the weights every shipped task begins with, its first order, its generated examples.

Every published record rests on them. A change here is a change of protocol: a new version.
"""

from __future__ import annotations

import pytest
import torch

from lthbench.networks import families
from lthbench.networks.state import digest
from lthbench.protocol import datasets
from lthbench.protocol.task import load_task, task_names
from lthbench.training.batches import batches

TRAINED = {  # of files; seeds 0 and 1000: fold 0
    "conv4-cifar10": 45_000,
    "lenet300-mnist": 55_000,
    "mlp-digits": 1_293,
    "mlp-mnist1d": 3_600,
    "resnet-mnist1d": 3_600,
    "resnet20-cifar10": 45_000,
    "resnet20-cifar10-160": 45_000,
    "resnet8-cifar10": 45_000,
    "vit-mnist1d": 3_600,
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
        "fd8a8e2c5f8ebf8e0f86d4ed25fba3b076760b6996a8476b7f5f7527a2b97250",
    ),
    ("mlp-modadd59", 1000): (
        "c07df0403128d13261321e5d9a6b4c310b21f72dc809c31e045e00257ac3f40d",
        "b35bc78cdf0ae7f723b8c3a16cdb019a4d0f2ae55aaa9ec3cf4f754cb805d852",
    ),
    ("transformer-modadd59", 0): (
        "8672b4f68cec5b9b8498e8e21e4a6a3d20a80059b1610d793c19b6fb29e69a02",
        "fb565b08e94040cc856660d56b13eb00262f2f05473a94c049c30bed3f2ddd22",
    ),
    ("transformer-modadd59", 1000): (
        "eccc2e4da52c9d587e5ba00b254b38f1196a95d5a18977536635db8f4c24bbfe",
        "bdaf5b6b1f78df5e36b421d13c93139f7d54b8689d48814c8a1fb317dd95dbae",
    ),
    ("mlp-mnist1d", 0): (
        "bad34c6f05abe237213324e8412d8da3461b3aff4d84f39c770d772b548d188c",
        "b713596b76d83461aada74961b59f85b4679ee5229e56492c9ae2a1e51c87c71",
    ),
    ("mlp-mnist1d", 1000): (
        "3ad8df2acba2eea0fe47072e6839d20a6be39f8fe37cde06de9d938a9ad85573",
        "dcbdb98bde2541a85a355054d55dbaaa964ceccfc8cbf395895161ed29a49fcb",
    ),
    ("resnet-mnist1d", 0): (
        "4ec70d676d56fa93abafde7dd4bd250ee71f63a1a1d2626744ddc11394940291",
        "544c5ff5badf6bbebc1c83bcbd0cb96ea1950b86e9c37090439dd1836da91ca4",
    ),
    ("resnet-mnist1d", 1000): (
        "4c725564f6efda6ce9b35f039680d07a631d05d15a5632b0662286a5a163b896",
        "3016798da2262888947c7671050f997d893acb8126af0dcd966321ecf06339d4",
    ),
    ("vit-mnist1d", 0): (
        "2800fbeb7ab1e10ec8240e3e8a874e2e115a987653cc13a806d2d6ac2472aa6e",
        "544c5ff5badf6bbebc1c83bcbd0cb96ea1950b86e9c37090439dd1836da91ca4",
    ),
    ("vit-mnist1d", 1000): (
        "177c1da0769b1f1cd220e5a157783336175afd79e74991bae60e0ced9951fb93",
        "3016798da2262888947c7671050f997d893acb8126af0dcd966321ecf06339d4",
    ),
    ("resnet8-cifar10", 0): (
        "20415c9a6b5ea0a70499311dc3f6135f495ca05b65104423990a89db1dfd6293",
        "d4892d492d992a3a424a6bf76b990eb18bcc6be642837ce563f3d043b6f78fcc",
    ),
    ("resnet8-cifar10", 1000): (
        "a02c2690bc265805ca231dca3e2a5596f68fda450854fb6316c36f310c36473e",
        "017e6cfc89a473c27edd07d8e5e02f8e52ee86bdc71c7c771247361043bdaecc",
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
    ("mlp-modadd59", 0): "fbb420d4779a2d35357f8ce1224cc8ff68c59991fa537eb8fe075d9cdc45ec00",
    ("mlp-modadd59", 1000): "0eb84a9e92d6c039394e5610c5770ccc15489bf7fb17db9a07f81184b340629a",
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
    assert families.initial(task.network, task.network.depth, seed).digest == GOLDEN[name, seed][0]


@pytest.mark.parametrize(("name", "seed"), sorted(GOLDEN))
def test_first_order(name: str, seed: int) -> None:
    task = load_task(name)
    count = TRAINED.get(name) or len(datasets.search(task, seed).train.y)
    rows = batches(task.recipe, count, seed, ("data", "dense", "0"), 0, 3)
    assert digest({str(n): chosen for n, chosen in enumerate(rows)}, 0) == GOLDEN[name, seed][1]


@pytest.mark.parametrize(("name", "seed"), sorted(SUMS))
def test_generated_examples(name: str, seed: int) -> None:
    parts = datasets.modular_addition(load_task(name), seed)
    arrays = {
        f"{n}{key}": torch.from_numpy(getattr(p, key)) for n, p in enumerate(parts) for key in "xy"
    }
    assert digest(arrays, 0) == SUMS[name, seed]
