"""Logs of ranks, after those have ended."""

from pathlib import Path

from bench.masking import masked_text
from bench.store.results import write_whole

MAX_BYTES = 256 * 2**20  # a log beyond that is left as it is; ranks mask what Python prints as they go


def mask_logs(run_dir: Path) -> None:
    """Nothing; what libraries in C++ have printed around Python's streams is masked as well, in every log of the directory."""
    for file in sorted((run_dir / "log").rglob("*.log")):
        if file.is_symlink() or file.stat().st_size > MAX_BYTES:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if masked_text(text) != text:
            write_whole(file, text)
