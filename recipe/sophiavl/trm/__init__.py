"""Asking a thinking reward model (TRM): question, images and reasoning in, a score in [0, 1] or a missing one out.

Everything that a training run needs to ask, and nothing of making a model (`trm_training`). Imports neither verl, torch
nor anything above it; the reward manager, the trainer, the start checks and `trm_training` may import it.
"""
