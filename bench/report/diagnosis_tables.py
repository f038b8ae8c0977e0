"""What `bench doctor` found, as a table."""

from bench.facts.diagnosis import Diagnosis, Level
from bench.report.tables import Table


def diagnosis_table(diagnosis: Diagnosis) -> Table:
    """One row for everything that was looked at; what is wrong comes with what to do."""
    counted = {level: sum(f.level is level for f in diagnosis.findings) for level in Level}
    title = f"{diagnosis.host}: {counted[Level.OK]} ok, {counted[Level.WARN]} warn, {counted[Level.FAIL]} fail"
    rows = tuple((f.check, f.level.value, f.found, f.fix) for f in diagnosis.findings)
    return Table(title, ("check", "state", "found", "what to do"), rows)
