"""The platform is set before anything imports verl, as the study's worker does."""

from recipe.sophiavl.verl_support import environment

environment.configure()
