"""What repairs or replaces parts of verl and of the platform: all that knows more of verl than its public interface.

Imports nothing of the recipe. The entry points, the plugin, the trainer and the reward manager may import it.
"""
