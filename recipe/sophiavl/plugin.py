"""verl's ``verl.plugins`` entry point: registers the recipe in every process that imports verl (Ray workers too).

Everything here is deferred until the module that it concerns is imported (``wrapt.when_imported``): verl loads plugins
at the end of its own import, and a process that needs no reward manager should not pay for one. verl swallows the
errors of plugins at debug level, so the entry point of the recipe calls :func:`check_registered`.
"""

from __future__ import annotations

import os

from wrapt import when_imported

from recipe.sophiavl.verl_support import environment, internals, repairs


@when_imported("verl.experimental.reward_loop.reward_manager")
def _register_reward_manager(_module) -> None:
    import recipe.sophiavl.reward_manager  # noqa: F401  (registers itself)


repairs.install()
if environment.on_cpu():
    from recipe.sophiavl.verl_support import cpu_platform

    cpu_platform.install()


def check_registered() -> None:
    """Stop with a clear message unless verl sees the reward manager and, where asked for, the CPU platform.

    Raises:
        RuntimeError: the plugin is not active; the message says what to install or unset.
    """
    # Here, because every process that imports verl imports this module.
    from recipe.sophiavl.settings import REWARD_MANAGER_NAME

    if not internals.knows_reward_manager(REWARD_MANAGER_NAME):
        raise RuntimeError(
            f"verl does not know the reward manager {REWARD_MANAGER_NAME!r}. Its plugin entry point "
            "'sophiavl' was not loaded: run `pip install -e .` in the repository, and check that "
            f"VERL_USE_EXTERNAL_PLUGINS={os.environ.get('VERL_USE_EXTERNAL_PLUGINS', 'auto')!r} allows it."
        )
    if environment.on_cpu() and internals.platform_name() != "cpu":
        raise RuntimeError(
            "VERL_PLATFORM=cpu is set but verl uses another platform: verl was imported before the environment was set"
        )
