"""SophiaVL-R1 (arXiv 2505.17018) on verl: Trust-GRPO with a thinking reward beside the outcome reward."""
