"""verl's task runner with the Trust-GRPO trainer in place of the stock one."""

from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.v1 import trainer_base

from recipe.sophiavl.plugin import check_registered

# verl's class is a Ray actor class already; Ray keeps the plain class that it was made from.
_TaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


@ray.remote
class TrustGRPOTaskRunner(_TaskRunner):
    """Runs the training; ``trainer.v1.trainer_mode`` picks the stock trainer that Trust-GRPO builds on."""

    def run(self, config: DictConfig) -> None:
        from recipe.sophiavl.trainer import trust_grpo_trainer

        check_registered()
        # verl compares the mode with its own names in several places, so the name stays and its class changes.
        mode = config.trainer.v1.trainer_mode
        trainer_base.TRAINER_REGISTRY[mode] = trust_grpo_trainer(trainer_base.get_trainer_cls(mode))
        super().run(config)
