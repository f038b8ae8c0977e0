"""Published training runs: what they were, apart from what they reached."""

from enum import StrEnum

from bench.facts.figure import fact


@fact
class PublishedSetup:
    """What a published run was; None where its source does not say. Holds nothing that was observed."""

    id: str
    group: str  # rows that may be predicted from one another
    source: str
    stack: str  # one source, software release, device and precision
    series: str  # one model on one stack
    kind: str  # run, or sweep of plans
    framework: str
    year: float | None
    gpu: str
    precision: str
    is_moe: bool
    params_total_b: float | None
    n_layers: float | None
    d_model: float | None
    n_heads: float | None
    n_kv_heads: float | None
    d_ff: float | None
    gated: bool
    vocab_size: float | None
    seq_len: float | None
    n_experts: float | None
    experts_top_k: float | None
    moe_d_ff: float | None
    tied_embedding: bool
    n_devices: float | None
    devices_per_node: float | None
    intra_node_net: str
    inter_node_net: str
    tp: float | None
    pp: float | None
    n_virtual: float | None
    cp: float | None
    ep: float | None
    dp: float | None
    sharding: str
    micro_batch: float | None
    global_batch: float | None
    recompute: str
    software_state: str
    setup_options: dict[str, str]
    probe_all_gather_bytes_per_s: float | None  # bus bandwidth of 256 MB over all devices of the job


@fact
class Observed:
    """What a published run reached."""

    tokens_per_s_per_device: float
    reserved_bytes: float | None


@fact
class RowPrediction:
    """The prediction of one row, or why there is none."""

    id: str
    tokens_per_s_per_device: float | None = None
    tokens_per_s_per_device_p10: float | None = None
    tokens_per_s_per_device_p90: float | None = None
    step_s: float | None = None
    reserved_bytes: float | None = None  # of pipeline stage 0
    fits: bool | None = None
    fits_probability: float | None = None
    error: str = ""


class Protocol(StrEnum):
    """What is measured before the rest is predicted."""

    SCALE = "scale"  # a model's smallest cluster; its larger clusters are predicted
    PROXY = "proxy"  # a stack's cheapest model on its smallest cluster; larger models and clusters are
    COLD = "cold"  # nothing
    SWEEP = "sweep"  # plans on up to 64 devices; plans on more are
