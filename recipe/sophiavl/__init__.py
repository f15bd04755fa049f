"""SophiaVL-R1 (arXiv 2505.17018) on verl: Trust-GRPO with a thinking reward beside the outcome reward.

A training run reads from `main_sophiavl` down: `task_runner`, `trainer`, `reward_manager`, `trust_grpo`; beside them
`settings`, `checks`, `guards`, `metrics`. `trm` asks a thinking reward model, `trm_training` makes one, and
`verl_support` holds what knows verl's internals. Imports `reward_score`, and of `data_preprocess` the reading of files.
"""
