"""Files are whole, whoever else writes them at the same time."""

import json
import threading
from pathlib import Path

from bench.store.results import write_whole


def test_two_threads_that_write_one_file_leave_one_of_two_texts(tmp_path: Path) -> None:
    """A rank's main thread and the watcher of its signals both say why it ends."""
    texts = [json.dumps({"text": "a" * 4000}), json.dumps({"text": "b"})]

    def write(text: str) -> None:
        for _ in range(100):
            write_whole(tmp_path / "failure0.json", text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "failure0.json").exists():
            seen.add((tmp_path / "failure0.json").read_text())
    assert seen <= set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["failure0.json"]
