"""A run in the terminal while it goes on: ``python -m recipe.sophiavl.watch RUN_DIR``."""
