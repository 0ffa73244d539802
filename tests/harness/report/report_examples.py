"""Measurements to make pages of, and the parts of a page to look at."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.carbon import CarbonFactors
from harness.dataset.summary import summarise
from harness.records import EnergyMethod, KernelEnergyRow, KernelRow, Measurement, Provenance
from harness.report.blocks import Page, Section, Table
from harness.report.page import build_page


def simulated(measurement: Measurement) -> Measurement:
    """The same measurement as if a virtual GPU had made it."""
    run = replace(measurement.run, provenance=Provenance.SIMULATED, gpu=f"virtual: {measurement.run.gpu}")
    readings = tuple(replace(row, provenance=Provenance.SIMULATED) for row in measurement.readings)
    return replace(measurement, run=run, readings=readings)


def with_ledger(measurement: Measurement, residual_j: float, ci95_j: float | None = 2.0) -> Measurement:
    """A run of 100 J that idle, kernels and host gaps explain but for the residual."""
    run = replace(
        measurement.run,
        energy_j=100.0,
        energy_ci95_j=5.0,
        energy_systematic95_j=4.0,
        duration_ci95_s=0.01 * (measurement.run.duration_s or 0.0),
        ledger_idle_j=60.0,
        ledger_kernels_j=30.0,
        ledger_gaps_j=10.0 - residual_j,
        residual_j=residual_j,
        residual_ci95_j=ci95_j,
        ledger_method=EnergyMethod.REPLAY,
    )
    return replace(measurement, run=run)


def with_methods(measurement: Measurement) -> Measurement:
    """Every kernel by three methods: regression says a quarter more than replay; waiting costs its share of time."""
    energies = [row for row in measurement.kernel_energies if row.method is EnergyMethod.APPORTIONED]
    kernels = {(row.phase, row.rank, row.kernel_id): row for row in measurement.kernels}
    for row in tuple(energies):
        kernel = kernels[row.phase, row.rank, row.kernel_id]
        energies.append(_by(EnergyMethod.REPLAY, row, kernel, 0.8, -0.2))
        energies.append(_by(EnergyMethod.REGRESSED, row, kernel, 1.0, 0.25))
    return replace(measurement, kernel_energies=tuple(energies))


def _by(
    method: EnergyMethod, row: KernelEnergyRow, kernel: KernelRow, factor: float, disagreement: float
) -> KernelEnergyRow:
    energy_j = factor * (row.energy_j or 0.0)
    wait_share = (kernel.wait_s or 0.0) / (kernel.duration_s or 1.0)
    tells = method is EnergyMethod.REPLAY and kernel.wait_s is not None
    return replace(
        row,
        method=method,
        energy_j=energy_j,
        active_energy_j=energy_j,
        energy_ci95_j=0.1 * energy_j,
        wait_energy_j=wait_share * energy_j if tells else None,
        disagreement=disagreement,
    )


def page_of(folder: Path, carbon: CarbonFactors | None = None) -> Page:
    return build_page(summarise(folder), (), carbon)


def names(page: Page) -> list[str]:
    return [section.name for section in page.sections]


def section(page: Page, name: str) -> Section:
    return next(section for section in page.sections if section.name == name)


def table(page: Page, name: str, caption: str) -> Table:
    return next(
        table for group in section(page, name).groups for table in group.tables if table.caption.startswith(caption)
    )


def rows(page: Page, name: str, caption: str) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table(page, name, caption).rows]


def notes(page: Page, name: str) -> str:
    return " ".join(note for group in section(page, name).groups for note in group.notes)


def figures(page: Page, name: str) -> list[dict[str, Any]]:
    return [json.loads(figure.spec) for group in section(page, name).groups for figure in group.figures]
