"""What a run learned: reads what verl logged and dumped, prints a summary, writes a page, follows a run."""

from recipe.sophiavl.report.logs import Steps, load_metrics

__all__ = ["Steps", "load_metrics"]
