"""Measuring a served thinking reward model: agreement, calibration, trust weights, and what planted faults do.

The command is ``python -m recipe.sophiavl.trm_training.evaluate``. Nothing else imports this package.
"""
