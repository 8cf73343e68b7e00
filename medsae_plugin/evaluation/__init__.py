"""Latents scored against clinical labels."""

from typing import Any

__all__ = ["LatentStatistics", "evaluate_saes", "format_table"]


def __getattr__(name: str) -> Any:
    # Looked up when asked for, so that importing the package stays cheap.
    if name == "LatentStatistics":
        from medsae_plugin.evaluation.statistics import LatentStatistics

        return LatentStatistics
    if name == "evaluate_saes":
        from medsae_plugin.evaluation.scores import evaluate_saes

        return evaluate_saes
    if name == "format_table":
        from medsae_plugin.evaluation.output import format_table

        return format_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
