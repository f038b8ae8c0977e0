"""The pages a reader has: their links and their commands."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(?P<text>(?:bench|torchrun|sky|kubectl|docker|sbatch) [^`]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")

# Commands that are not run by the tests, with the reason; each must match something, so that none outlives its command.
NOT_HERE = {
    r"\.\.\.|\b(NAME|RUN|PROBE|SLICE|VERB|HEAD|N)\b|\$I|bench [a-z-]+ (yesterday|a b)": "words that stand for the reader's own",
    r"bench submit|sbatch": "needs Slurm; tests/engines/test_slurm.py submits where it is installed",
    r"\bsky |\bkubectl |\bdocker ": "needs a cluster or an image",
    r"n_nodes=2|nnodes=2": "needs a second machine; tests of launch.n_nodes meet on loopback",
    r"scripts/(bench|test)\b": "sets up .venv from the package registry; .ci/run calls it",
    r"scripts/gpu/": "needs a GPU; tests/e2e/test_gpu_campaigns.py runs them on a CPU",
    r"out=node\b|[=\[]node-": "needs a GPU node: minutes, and eight devices; tests/e2e has the same verbs on a CPU",
}
ALONE = ("bench doctor", "bench completion bash")  # commands that need no key; other verbs alone are mentions
MAY_END_OTHERWISE = {"bench doctor": (0, 1)}  # it fails where this machine does


@dataclass(frozen=True)
class Snippet:
    """Commands as a page shows them."""

    page: str
    line: int
    language: str
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run here; empty where it is."""
        return next((why for pattern, why in NOT_HERE.items() if re.search(pattern, self.text)), "")


def snippets(page: Path) -> list[Snippet]:
    """Fenced blocks, then commands within the text: those that set a key, or name a verb that needs none."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    found = [_snippet(text, name, match, match["language"] or "sh") for match in FENCE.finditer(text)]
    outside = FENCE.sub(lambda match: "\n" * match.group().count("\n"), text)
    inline = [_snippet(outside, name, match, "sh") for match in INLINE.finditer(outside)]
    return found + [s for s in inline if "=" in s.text or not s.text.startswith("bench ") or s.text in ALONE]


def _snippet(text: str, name: str, match: re.Match[str], language: str) -> Snippet:
    return Snippet(name, text.count("\n", 0, match.start()) + 1, language, match["text"].replace("\\|", "|").strip())


def links(page: Path) -> list[str]:
    """Targets of a page's links inside the repository."""
    found = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(page: Path) -> set[str]:
    """What a link may point to within a page: its headings, as mkdocs and GitHub name them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
