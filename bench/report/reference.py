"""The page of every verb, group and key: docs/reference.md."""

from collections.abc import Mapping, Sequence
from itertools import starmap

from bench.facts.key import Key
from bench.report.markdown import markdown_table
from bench.report.tables import Table

EXAMPLES = {
    "run": "bench run model=tiny device=cpu measure.steps=20 out=first",
    "probe": "bench probe probe=quick device=cpu probe.matmul_sizes=[256] out=probed",
    "slice": "bench slice cluster=memphis_100k_h100 device=cpu slice.repeat.budget_s=1 out=sliced",
    "sweep": "bench sweep model=tiny device=cpu train.micro_batch_size=2,4 measure.steps=5 out=swept",
    "predict": "bench predict target=llama3_405b cluster=meta_llama3_16k out=predicted",
    "plan": "bench plan target=gpt3_175b cluster=nvidia_eos out=planned",
    "report": "bench report runs/a out=page.html",
    "backtest": "bench backtest out=accuracy.md",
    "fit-priors": "bench fit-priors out=published.yaml",
    "trace": "bench trace plan=fsdp_tp plan.tensor_parallel_size=8 n_devices=1024 out=traced",
    "compare": "bench compare runs/a runs/b gate=-3%",
    "rerun": "bench rerun runs/a out=again",
    "bundle": "bench bundle runs/a out=a.tar.gz",
    "table": "bench table runs format=csv",
    "doctor": "bench doctor",
    "lab": "bench lab short out=laboratory",
    "completion": "bench completion bash",
    "decide": "bench decide experiment=rent_or_build",
    "submit": "bench submit engine.n_nodes=2 out=/shared/run",
}
# of keys whose default is empty, or that are the default's own word for something else
KEY_EXAMPLES = {
    "measure.steps": "100",
    "model.attention_softcap": "30.0",
    "model.router_softcap": "30.0",
    "model.final_softcap": "50.0",
    "probe.collective_max_bytes": "16777216",
    "sweep.points": "points.yaml",
    "rows": "T.csv",
    "calibration": "C.csv",
    "result": "runs/a",
    "profile": "runs/p",
    "slices": "[runs/s]",
    "n_devices": "64",
    "gate": "-3%",
    "results_uri": "file:///backup",
    "out": "runs/a",
    "launch.node_rank": "1",
    "launch.master_addr": "node0",
    "launch.master_port": "29500",
    "launch.interface": "eth0",
    "engine.partition": "spot",
    "engine.account": "lab",
    "engine.gres": "gpu:8",
    "engine.constraint": "h100",
    "engine.cpus_per_node": "64",
    "trackers": "[tensorboard]",
    "model.source": "mine",
    "measure.meter": "runs/a/meter.json",
    "compare.noise_floor.source": "measured_here",
}
FIRST_AFTER_AUTO = {"integer": "2", "number": "0.5", "text": "name"}
OWN = "keys of their own"


def reference_page(verbs: Mapping[str, str], groups: Mapping[str, Sequence[str]], keys: Sequence[Key]) -> str:
    """The whole page in Markdown; `verbs` are their names with their help lines."""
    parts = [
        "# Reference",
        "Made by `scripts/reference` from the code and `conf/`; a test holds it to them. A command is `bench VERB key=value ...`, "
        "or `python -m bench` for `bench`.",
        markdown_table(Table("Verbs", ("verb", "what it does", "example"), tuple(starmap(_verb, verbs.items())))),
        _FLAGS,
        markdown_table(Table("Groups", ("group", "options: group=option"), tuple(starmap(_group, groups.items())))),
        "Some groups hold single figures that can be overridden too, such as `cluster.n_nodes=64`; `bench VERB --cfg` prints all of them.",
        *(_section(name, [key for key in keys if key.section == name]) for name in dict.fromkeys(key.section for key in keys)),
    ]
    return "\n\n".join(parts) + "\n"


_FLAGS = """\
| flag | for |
| --- | --- |
| `--json` | the typed result on the standard output instead of tables, where a verb has one |
| `--quiet` | no progress on the standard error |
| `--cfg` | the composed configuration, and nothing is run |
| `--force` | `bench compare`: unlike runs too |
| `--help`, `--version` | verbs, groups and options; the version |"""


def _verb(name: str, text: str) -> tuple[str, str, str]:
    return f"`{name}`", text, f"`{EXAMPLES.get(name, f'bench {name}')}`"


def _group(name: str, options: Sequence[str]) -> tuple[str, str]:
    return f"`{name}`", ", ".join(f"`{option}`" for option in options)


def _section(name: str, keys: Sequence[Key]) -> str:
    rows = tuple((f"`{key.path}`", key.kind, f"`{key.default}`", key.meaning, f"`{key_example(key)}`") for key in keys)
    return markdown_table(Table(f"{name or OWN}", ("key", "type", "default", "meaning", "example"), rows))


def key_example(key: Key) -> str:
    """An override that sets the key, to its default where that says something."""
    if key.path in KEY_EXAMPLES:
        return f"{key.path}={KEY_EXAMPLES[key.path]}"
    if key.default not in ("auto", "null", "[]"):
        return f"{key.path}={key.default}"
    kinds = [kind for kind in key.kind.split(" or ") if kind not in ("auto", "null")]
    return f"{key.path}={FIRST_AFTER_AUTO.get(kinds[0], kinds[0])}"
