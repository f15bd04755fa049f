"""verl's task runner with the Trust-GRPO trainer in place of the stock one."""

from __future__ import annotations

import ray
from omegaconf import DictConfig

from recipe.sophiavl.plugin import check_registered
from recipe.sophiavl.verl_support import internals


@ray.remote
class TrustGRPOTaskRunner(internals.task_runner_class()):
    """Runs the training; ``trainer.v1.trainer_mode`` picks the stock trainer that Trust-GRPO builds on."""

    def run(self, config: DictConfig) -> None:
        from recipe.sophiavl.trainer import trust_grpo_trainer

        check_registered()
        mode = config.trainer.v1.trainer_mode
        internals.use_trainer(mode, trust_grpo_trainer(internals.trainer_class(mode)))
        super().run(config)
