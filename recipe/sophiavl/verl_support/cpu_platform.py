"""verl 0.9.1 and vLLM 0.28 on machines without a GPU: a verl platform class and the few patches it needs.

Active only where ``VERL_PLATFORM=cpu`` is set when verl is imported (``environment.configure`` sets it on machines
without an accelerator). Each patch names the version it is for; none edits a file of verl or vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from wrapt import when_imported

from recipe.sophiavl.verl_support import cpu_resources


class _TorchCpu(ModuleType):
    """``torch.cpu`` with the calls that verl makes on ``torch.cuda`` (memory statistics are those of the process)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def _nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    set_device = synchronize = empty_cache = ipc_collect = reset_peak_memory_stats = _nothing
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)

    @staticmethod
    def get_rng_state(*_args: Any) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_args: Any) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def get_device_name(*_args: Any) -> str:
        return "CPU"

    @staticmethod
    def memory_allocated(*_args: Any) -> int:
        return psutil.Process().memory_info().rss

    memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated

    @staticmethod
    def mem_get_info(*_args: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total


class PlatformCPU(PlatformBase):
    """verl's platform interface (``verl/plugin/platform/platform_base.py``) for the CPU."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _TorchCpu("torch_cpu_for_verl")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never by auto-detection, only through VERL_PLATFORM=cpu

    def current_device(self) -> str:
        return "cpu"  # verl passes it to tensor.to(), where a number would mean cuda:<number>

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        return "GPU"  # a logical resource: ray.init(num_gpus=N)

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _one_backend_per_device(distributed: ModuleType) -> None:
    """torch refuses verl 0.9.1's backend string "cpu:gloo,cpu:gloo": name gloo once (RL and SFT entry points)."""
    init_ray: Callable = distributed.initialize_global_process_group_ray

    def initialize_global_process_group_ray(timeout_second: int | None = None, backend: str | None = None) -> None:
        init_ray(timeout_second, backend or "cpu:gloo")

    def initialize_global_process_group(timeout_second: int = 36000) -> tuple[int, int, int]:
        init_ray(timeout_second, "cpu:gloo")
        return int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    distributed.initialize_global_process_group_ray = initialize_global_process_group_ray
    distributed.initialize_global_process_group = initialize_global_process_group


def _no_pinned_memory(fsdp: ModuleType) -> None:
    """verl 0.9.1 offloads the FSDP2 reference policy with pinned memory, which needs a GPU driver."""
    original_init = fsdp.CPUOffloadPolicy.__init__

    def __init__(self: Any, pin_memory: bool = False) -> None:
        original_init(self, pin_memory=False)

    fsdp.CPUOffloadPolicy.__init__ = __init__


def _keep_plain_weights(layers: ModuleType) -> None:
    """vLLM 0.28 drops a linear layer's plain weight once packed for the CPU; weight sync needs it as its target."""
    original: Callable = layers.dispatch_cpu_unquantized_gemm

    def dispatch_cpu_unquantized_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        original(layer, remove_weight=False)

    layers.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def _threads_of_a_server(server: ModuleType) -> None:
    """Give the engine of a vLLM server that verl 0.9.1 starts the threads of one that works beside others.

    ``verl/workers/rollout/vllm_rollout/vllm_async_server.py``: each server is an actor, its engine a child process.
    """
    original_init = server.vLLMHttpServer.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        os.environ[cpu_resources.THREADS] = os.environ[cpu_resources.SERVER_THREADS]
        original_init(self, *args, **kwargs)

    server.vLLMHttpServer.__init__ = __init__


def install() -> None:
    """Register the platform and apply each patch when its module is imported."""
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
    when_imported("verl.utils.distributed")(_one_backend_per_device)
    when_imported("torch.distributed.fsdp")(_no_pinned_memory)
    when_imported("vllm.model_executor.layers.utils")(_keep_plain_weights)
    when_imported("verl.workers.rollout.vllm_rollout.vllm_async_server")(_threads_of_a_server)
