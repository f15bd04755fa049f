"""Measuring a policy on RL data: ``python -m recipe.sophiavl.evaluate MODEL_OR_URL DATA…``.

`questions` reads the data, `serving` starts a model that nobody serves yet, `policy` asks, `answers` keeps what was
answered, `figures` computes, `outputs` shows; `evaluation` joins them.
"""
