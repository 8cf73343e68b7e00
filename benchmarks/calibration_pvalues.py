"""Rows of `calibration.py`: p values, claims over all latents and labels, permutations."""

from __future__ import annotations

from calibration_simulated import Row

ROWS: list[Row] = []
