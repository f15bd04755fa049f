"""The study of trust and annealing: a grid of short runs on the real engine, and what their results say.

``python -m recipe.sophiavl.study`` runs the grid and analyses it; ``analysis`` needs the raw results only.
"""
