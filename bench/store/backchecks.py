"""Tables of claims, failures and energy that the project ships, with the source of every row."""

import csv
from collections.abc import Mapping

from bench.facts.backcheck import Claim, EnergyRow, ReliabilityRow
from bench.facts.units import J_PER_MWH
from bench.store.published import DATA


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def claims() -> tuple[Claim, ...]:
    """Every quantitative statement about compute of the documents that the project started from."""
    texts = ("id", "claim", "quantity", "unit", "system", "source", "note")
    return tuple(
        Claim(**{name: row[name] for name in texts}, value_low=float(row["value_low"]), value_high=float(row["value_high"]))
        for row in _rows("claims.csv")
    )


def reliability_rows() -> tuple[ReliabilityRow, ...]:
    """Published runs and what interrupted them."""
    return tuple(_reliability(row) for row in _rows("reliability.csv"))


def energy_rows() -> tuple[EnergyRow, ...]:
    """Published power and energy of devices in training."""
    return tuple(_energy(row) for row in _rows("energy.csv"))


def _reliability(row: Mapping[str, str]) -> ReliabilityRow:
    return ReliabilityRow(
        **{name: row[name] for name in ("id", "source", "locator", "device", "recovery", "not_used", "note")},
        leave_out=tuple(name for name in row["leave_out"].split(";") if name),
        n_devices=int(row["n_devices"] or 0),
        devices_per_node=int(row["devices_per_node"] or 8),
        days=_number(row["days"]),
        count=_range(row["count_low"], row["count_high"]),
        hardware_only=row["counts"] == "hardware",
        mtbf_h=_range(row["mtbf_low_h"], row["mtbf_high_h"]),
        effective=_range(row["effective_low"], row["effective_high"]),
        n_parameters=_number(row["parameters"]),
    )


def _energy(row: Mapping[str, str]) -> EnergyRow:
    energy, n = _number(row["energy_mwh"]), _number(row["n_devices"])
    return EnergyRow(
        **{name: row[name] for name in ("id", "source", "locator", "device", "load_note", "not_used")},
        n_devices=None if n is None else int(n),
        device_hours=_number(row["device_hours"]),
        energy_j=None if energy is None else energy * J_PER_MWH,
        measured_w=_number(row["measured_w"]),
        with_host=row["scope"] == "system",
        is_metered=row["metered"] == "yes",
        flops_per_s=_number(row["flops_per_s"]),
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _range(low: str, high: str) -> tuple[float, float] | None:
    return (float(low), float(high)) if low else None
