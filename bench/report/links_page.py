"""docs/links.md: the kept experiment on shaped links."""

from bench.facts.lab import LabResult
from bench.report.lab_tables import errors_table, honesty_table, rows_table, worth_table
from bench.report.markdown import markdown_table

TEXT = """# Predicted against measured scaling

[Accuracy](accuracy.md) holds the predictor against other people's runs. This page holds an extrapolation against our own, end to end:
every case is measured on one and two hosts, more hosts are predicted from that, and then measured too, on links whose rate and delay we
set.

```sh
bench lab short out=laboratory
```

wants root on Linux, `iproute2` and a few minutes; `bench lab scaling` is the whole experiment of this page, an hour on two cores
that nothing else uses. A laboratory that was stopped goes on with the same command and `out`.

**Hosts** are network namespaces of one machine, each with an interface and an address of its own, joined by a switch (or by leaves and
a spine). `tc tbf` gives every link its rate, in both directions; a delay is added by a process of ours that holds the frames. torchrun
starts one agent on every host, as it would on machines. **Compute is metered**: two cores cannot compute for sixteen ranks, so every
operation of a rank is replaced by a wait of the length that was measured for it once, while it had a core to itself. Tensors, autograd,
buckets, hooks, collectives and what they hide behind are real; `bench run measure.record_meter=true`, then
`measure.meter=RUN/meter.json`, does the same outside the laboratory, and such a run is marked as no training speed.

**The prediction** adds up what a rank does by itself and the exchanges that nothing hides, each by the law of the ring that carries it
over gloo (`bench/cost/growth.py`; a pipeline is followed message by message, `bench/cost/one_f_one_b.py`). Four unknowns - own work,
rate of a link, time of an empty message, and a factor on all exchanges - are Gaussian in their logarithms, with the description of the
links as prior, and are conditioned on all-reduces and one training step between two hosts (`bench/cost/foresight.py`). The laws hold
for gloo on CPUs: on GPUs `bench predict` has other ones. Exchanges are in fp32, all plans are those of `conf/lab/base.yaml`.

**Two rules** that ask for no model stand beside it: *linear*, every device stays as fast as it is on one host; *last doubling again*,
every doubling of hosts multiplies the throughput as the first one did.

![Predicted and measured steps over hosts](pictures/links.png)
"""


def links_page(result: LabResult) -> str:
    """The page, in Markdown."""
    tables = (errors_table(result.rows), rows_table(result), worth_table(result.rows), honesty_table(result.honesty))
    return "\n\n".join([TEXT.rstrip(), *map(markdown_table, tables)]) + "\n"
