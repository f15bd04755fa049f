"""Making a thinking reward model: collect, annotate, balance, train (SFT on verl), evaluate; each module is a command.

May import `trm`, `trust_grpo`, `data_preprocess` and `reward_score`. No training run imports anything of it.
"""
