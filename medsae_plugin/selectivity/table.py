"""A selectivity as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medsae_plugin.selectivity.models import AblatedUnits
from medsae_plugin.text import aligned

_TITLES = {"probe": "Probes at the hook", "zero-shot": "The encoder's zero-shot scores"}


def means(units: Sequence[AblatedUnits]) -> str:
    """Of each units and k the means over observations."""
    rows = [["", "k", "own", "[95%]", "others", "random", "selectivity", "[95%]"]]
    for one in units:
        for m in one.means:
            rows.append(
                [
                    one.name if m is one.means[0] else "",
                    str(m.k),
                    _form(m.own),
                    _between(m.own_low, m.own_high),
                    _form(m.others),
                    _form(m.random),
                    _form(m.selectivity),
                    _between(m.selectivity_low, m.selectivity_high),
                ]
            )
    none = list(dict.fromkeys(m.no_interval for one in units for m in one.means if m.no_interval))
    title = f"{_TITLES[units[0].measure]}: means over observations"
    return "\n".join([title, *aligned(rows, rule_after=(1,)), *(f"no interval of a mean: {why}" for why in none)])


def covariate(units: Sequence[AblatedUnits], name: str, targets: Sequence[str]) -> str:
    """AUROC of a covariate, and the mean of the observations', as more of its units are silent."""
    ks = [m.k for m in units[0].means]
    rows = [["units that carry it silent", "unedited", *(f"k={k}" for k in ks)]]
    for one in units:
        told = [one.of(name, k, covariate=True) for k in ks]
        before = _mean([one.unedited[t] for t in targets])
        own = [before + a.own if a and a.own is not None and before is not None else None for a in told]
        others = [a.others if a else None for a in told]
        drawn = [one.of(None, k) for k in ks]
        chance = [_mean([e.auroc for t in targets if (e := a.on(t)) is not None] if a else []) for a in drawn]
        rows.append([f"{one.name}: {name}", _form(before, ""), *(_form(x, "") for x in own)])
        rows.append(["  change of the observations", "", *map(_form, others)])
        rows.append([f"  {name}, random units silent", "", *(_form(x, "") for x in chance)])
    title = f"{_TITLES[units[0].measure]}: AUROC of {name} ({', '.join(targets)})"
    return "\n".join([title, *aligned(rows, rule_after=(1,))])


def by_observation(units: AblatedUnits, labels: Sequence[str], positives: Mapping[str, int], ks: Sequence[int]) -> str:
    """Of each observation the change of its own AUROC, and of the others', k by k."""
    rows = [["observation", "+", "AUROC", "unit", *(head for k in ks for head in (f"k={k}", "others", "random"))]]
    for label in labels:
        row = [label, str(positives[label]), _form(units.unedited[label], ""), "-"]
        for k in ks:
            own, drawn = units.of(label, k), units.of(None, k)
            if own is not None and k == ks[0] and own.units[0]:
                row[3] = f"#{own.units[0][0]}" if len(own.units) == 1 else ""
            by_chance = drawn.on(label) if drawn else None
            sure = own is not None and own.own_low is not None and own.own_high is not None
            mark = "*" if own and sure and not (own.own_low or 0) <= 0 <= (own.own_high or 0) else " "
            row += [_form(own.own if own else None) + mark, _form(own.others if own else None)]
            row.append(_form(by_chance.change if by_chance else None))
        rows.append(row)
    reasons: dict[str, list[str]] = {}
    for label in labels:
        why = {a.k: a.no_interval for a in units.ablations if a.concept == label and not a.covariate and a.no_interval}
        for reason in dict.fromkeys(why.values()):
            at = [str(k) for k in ks if why.get(k) == reason]
            reasons.setdefault(str(reason), []).append(label + ("" if len(at) == len(ks) else f" k={','.join(at)}"))
    return "\n".join(
        [
            f"{units.name} ({units.hook}, {units.measure}) by observation; *: the interval of its change leaves 0 out",
            *aligned(rows, rule_after=(1,)),
            *(f"no interval: {', '.join(of)} ({why})" for why, of in reasons.items()),
            *([units.held_out_from] if units.held_out_from else []),
        ]
    )


def matrix(units: AblatedUnits, labels: Sequence[str], k: int) -> str:
    """What each observation's k units change of every observation."""
    rows = [["silent, the units of", *(f"({c})" for c in range(1, len(labels) + 1))]]
    for c, label in enumerate(labels, 1):
        one = units.of(label, k)
        effects = [one.on(target) if one else None for target in labels]
        rows.append([f"({c}) {label}", *(_form(e.change if e else None) for e in effects)])
    return "\n".join([f"{units.name}, {units.measure}: change of every observation, k={k}", *aligned(rows, (1,))])


def _form(x: float | None, sign: str = "+") -> str:
    if x is None:
        return "-"
    return f"{round(x, 2) or 0.0:{sign if round(x, 2) else ''}.2f}"  # a zero has no sign


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_form(low)}, {_form(high)}]"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known else None
