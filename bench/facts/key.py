"""A key of the command line, as a reference shows it."""

from bench.facts.figure import fact


@fact
class Key:
    """A key that an override may set."""

    path: str
    kind: str
    default: str
    meaning: str  # as conf/ comments it; empty where it does not

    @property
    def section(self) -> str:
        """The group or policy that it belongs to; empty for a key of its own."""
        return self.path.partition(".")[0] if "." in self.path else ""
