"""Making a thinking reward model. Commands, in the order of use: `collect`, `annotate`, `balance`, `train`, `evaluate`.

`pairs` is the row that all of them share. Beside them: `rollouts` (what a GRPO run left), `asking` and `journal` (many
scores, each paid for once), `filters`, `self_scoring`, `intervals` and `sides` (what is trained on), `sft_dataset` and
`sft_trainer` (on verl's SFT), `commands` (flags and exit codes).

May import `trm`, `trust_grpo`, `data_preprocess` and `reward_score`. No training run imports anything of it.
"""
