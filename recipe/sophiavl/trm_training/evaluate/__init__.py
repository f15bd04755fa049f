"""Measuring a served thinking reward model: agreement, calibration, picks and trust weights, what planted faults do.

`evaluation` measures rows of this project, `benchmark_figures` public benchmarks. The command is
``python -m recipe.sophiavl.trm_training.evaluate``. Nothing else imports this package.
"""
