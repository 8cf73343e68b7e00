"""`--where`: which rows of a table are wanted, in a grammar that can compare and nothing else."""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from medsae_plugin.data.dialects import key
from medsae_plugin.errors import MedSAEError

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_Truth = tuple[Any, Any]  # where it is true, and where it is false
_GRAMMAR = "compare columns with ==, !=, <, <=, >, >= or in, and join such with and, or, not and brackets"


def where(columns: Mapping[str, pd.Series], wanted: str) -> tuple[Bool[np.ndarray, " rows"], list[str]]:
    """The rows for which a condition such as `view == 'Frontal' and age > 18` holds, and notes on it.

    A row holds no comparison with a cell that is empty, or with a number where it has none; `not` of one it does not
    hold either, as in SQL. Columns are found whatever their case, spaces and signs (`follow_up` is `Follow-up #`).

    Raises:
        MedSAEError: something other than comparisons, no such column, text compared with a number, no row left.
    """
    try:
        tree = ast.parse(wanted.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise MedSAEError(f"--where {wanted!r} cannot be read: {_GRAMMAR}") from None
    condition = _Condition(columns, wanted)
    holds, _ = condition.of(tree.body)
    if not holds.any():
        why = "".join(f"; {note}" for note in condition.notes.values())
        raise MedSAEError(f"--where {wanted!r} holds for none of the {len(holds):,} images{why}")
    notes = [f"--where {wanted}: {int(holds.sum()):,} of {len(holds):,} images"]
    return holds, [*notes, *condition.notes.values()]


class _Condition:
    """Evaluates a condition, each part to where it is true and where it is false; it may be neither."""

    def __init__(self, columns: Mapping[str, pd.Series], wanted: str) -> None:
        self.columns, self.wanted = columns, wanted
        self.notes: dict[str, str] = {}
        self._by_key: dict[str, str] = {}
        for name in columns:
            self._by_key.setdefault(key(name), name)

    def of(self, node: ast.expr) -> _Truth:
        if isinstance(node, ast.BoolOp):
            parts = [self.of(value) for value in node.values]
            trues, falses = (np.stack([part[k] for part in parts]) for k in (0, 1))
            is_and = isinstance(node.op, ast.And)
            return (trues.all(0), falses.any(0)) if is_and else (trues.any(0), falses.all(0))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            true, false = self.of(node.operand)
            return false, true
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides[:-1], node.ops, sides[1:], strict=True)
            parts = [self._compared(left, op, right) for left, op, right in pairs]
            return np.stack([part[0] for part in parts]).all(0), np.stack([part[1] for part in parts]).any(0)
        raise self._refused(node)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Truth:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(left, ast.Name) or not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._refused(right)
            each = [self._pair(left, ast.Eq(), value) for value in right.elts]
            if not each:
                raise self._refused(right)
            true = np.stack([part[0] for part in each]).any(0)
            false = np.stack([part[1] for part in each]).all(0)
            return (true, false) if isinstance(op, ast.In) else (false, true)
        if type(op) not in _COMPARE:
            raise self._refused(left)
        return self._pair(left, op, right)

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Truth:
        if not isinstance(left, ast.Name):
            if not isinstance(right, ast.Name):
                raise self._refused(left)
            turned = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
            left, op, right = right, turned.get(type(op), type(op))(), left
        name, cells = self._column(left.id)
        value = self._constant(right)
        values, known = self._words(name, cells, value, op) if isinstance(value, str) else self._numbers(name, cells)
        true = np.asarray(_COMPARE[type(op)](values, value), dtype=bool)
        return true & known, ~true & known

    def _column(self, name: str) -> tuple[str, pd.Series]:
        found = self._by_key.get(key(name))
        if found is None:
            near = difflib.get_close_matches(name, self.columns, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(filter(None, self.columns))}"
            raise MedSAEError(f"--where {self.wanted!r}: there is no column {name!r}; {hint}")
        return found, self.columns[found]

    def _constant(self, node: ast.expr) -> str | float:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, node = -1, node.operand
        if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
            raise self._refused(node)
        if isinstance(node.value, str):
            if sign < 0:
                raise self._refused(node)
            return node.value
        try:
            return sign * float(node.value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise self._refused(node) from None

    def _words(self, name: str, cells: pd.Series, value: str, op: ast.cmpop) -> _Truth:
        if pd.api.types.is_numeric_dtype(cells):
            raise MedSAEError(f"--where {self.wanted!r}: {name} is of numbers, and {value!r} is text")
        words = cells.fillna("").astype(str).str.strip()
        if isinstance(op, ast.Eq | ast.NotEq) and not (words == value).any():
            has = ", ".join([repr(word) for word in words.unique() if word][:8])
            self.notes[f"{name} {value}"] = f"no image has {name} {value!r}; it has {has}"
        known = (words != "").to_numpy()
        self._note(name, known)
        return words.to_numpy(dtype=object), known

    def _numbers(self, name: str, cells: pd.Series) -> _Truth:
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
        known = ~np.isnan(numbers)
        if not known.any():
            raise MedSAEError(f"--where {self.wanted!r}: {name} holds no numbers; put text in quotes")
        self._note(name, known)
        return numbers, known

    def _note(self, name: str, known: np.ndarray) -> None:
        if not known.all():
            self.notes[name] = f"{int((~known).sum()):,} images without {name} hold no condition on it"

    def _refused(self, node: ast.AST) -> MedSAEError:
        part = ast.get_source_segment(self.wanted.strip(), node) if hasattr(node, "lineno") else None
        return MedSAEError(f"--where {self.wanted!r}: {part!r} is not understood here: {_GRAMMAR}")
