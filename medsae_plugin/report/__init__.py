"""What people look at: a report in one HTML file, and figures for papers."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "open_run": "medsae_plugin.report.sources",
    "write_report": "medsae_plugin.report.report",
    "write_figures": "medsae_plugin.report.figures",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
