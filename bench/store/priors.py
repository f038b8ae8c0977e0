"""Priors as files of conf/prior."""

import yaml

from bench.codec import encode
from bench.facts.prediction import Prior

HEAD = """# The uncertain figures of the cost model before anything of a stack is measured: physical.yaml after the published runs.
# Made by `bench fit-priors` from the rows in bench/store/data/; do not edit by hand, a test makes it again.
"""


def prior_text(prior: Prior) -> str:
    """The YAML text of a prior, a coefficient a line."""
    plain = encode(prior)
    coefficients = plain.pop("coefficients")
    name = plain.pop("name")
    lines = [HEAD + f"name: {name}", "coefficients:"]
    lines += [f"  {key}: {_flow(value)}" for key, value in coefficients.items()]
    for key, value in plain.items():
        lines += [f"{key}:", *(f"  {k}: {_flow(v)}" for k, v in value.items())] if key == "widths" else [f"{key}: {_flow(value)}"]
    return "\n".join(lines) + "\n"


def _flow(value: dict[str, object]) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=100_000).strip()
