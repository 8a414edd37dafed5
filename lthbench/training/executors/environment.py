"""What our processes inherit from the one that starts them."""

from __future__ import annotations

import os
from pathlib import Path

# Since 2.14 torch compiles some GPU products when it first meets them. That starts processes, which
# a method's child may not do, and needs a compiler, which a user may not have. Torch reads this on
# import.
NO_COMPILER = {"TORCH_DISABLE_NATIVE_JIT": "1"}


def without_compiler() -> None:
    """Disable the compiler in this process too, unless the user set it otherwise."""
    for name, value in NO_COMPILER.items():
        os.environ.setdefault(name, value)


ENVIRONMENT_KEPT = (
    "PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Return the few variables that a child or worker inherits: no data path, no cache, no home."""
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    if "PYTHONPATH" in kept:  # a child runs in a folder of its own
        folders = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders)
    return kept | NO_COMPILER
