"""What an identification found: as a table, JSON and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tdmpc2_core.files import replacing, write_json
from tdmpc2_core.identification.fit import Found, Identification

_WEAK = 0.9  # factor on the effort below which a motor is called weak


def _verdict(one: Found) -> str:
    if not one.identifiable:
        return "not identifiable from this data"
    weak = one.parameter.kind == "effort" and one.high < _WEAK
    return "weak motor" if weak else ""


def report_table(result: Identification) -> str:
    """One line per parameter, then held-out errors before and after."""
    lines = [f"{'parameter':28} {'nominal':>8} {'estimate':>9}   95 % interval"]
    for one in result.found:
        row = one.parameter
        value = f"{one.estimate:9.4g}   [{one.low:.4g}, {one.high:.4g}]"
        name = f"{row.name} {row.unit}".strip()
        lines.append(f"{name:28} {row.nominal:8.4g} {value:32} {_verdict(one)}".rstrip())
    lines.append(
        f"\nheld-out error, sigma of the sensors ({result.held_out} segments of {result.seconds:g} s)"
    )
    for name in result.before:
        lines.append(f"{name:28} {result.before[name]:8.3f} -> {result.after[name]:.3f}")
    return "\n".join(lines)


def as_mapping(result: Identification) -> dict[str, Any]:
    """Plain values for JSON."""
    rows = [
        {
            "parameter": one.parameter.name,
            "unit": one.parameter.unit,
            "nominal": one.parameter.nominal,
            "range": [one.parameter.low, one.parameter.high],
            "estimate": one.estimate,
            "interval": [one.low, one.high],
            "identifiable": one.identifiable,
            "used": one.value,
        }
        for one in result.found
    ]
    errors = {"before": result.before, "after": result.after}
    counts = {"segments": result.segments, "held_out": result.held_out, "seconds": result.seconds}
    return {"parameters": rows, "held_out_error_sigma": errors, **counts}


def write_report(folder: Path, result: Identification) -> None:
    """Write identification.json and identification.png. The picture needs the extra `video`."""
    write_json(folder / "identification.json", as_mapping(result))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(result.found)
    fig, axes = pyplot.subplots(figsize=(7.0, 1.0 + 0.28 * count), layout="constrained")
    for place, one in enumerate(result.found):
        row = one.parameter
        low, value, high, nominal = (
            (x - row.low) / (row.high - row.low) for x in (one.low, one.estimate, one.high, row.nominal)
        )
        colour = "C0" if one.identifiable else "0.75"
        axes.plot([low, high], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
        axes.plot(value, place, "o", color=colour)
        axes.plot(nominal, place, "k|", markersize=10)
    labels = [f"{one.parameter.name} [{one.parameter.low:g}, {one.parameter.high:g}]" for one in result.found]
    axes.set(yticks=range(count), yticklabels=labels, xlim=(0, 1), xlabel="place in its range; | nominal")
    axes.set_title("identified parameters, 95 % intervals; grey: not identifiable")
    axes.invert_yaxis()
    with replacing(folder / "identification.png") as partial:
        fig.savefig(partial, dpi=110)
    pyplot.close(fig)
