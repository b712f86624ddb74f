"""What changed between two runs, as one self-contained page.

Invariant: as of every page of this room (`template.py`): nothing of a document becomes markup.
"""

from __future__ import annotations

from pipelines.observe import figures
from pipelines.observe.compare import Comparison
from pipelines.observe.template import many, page
from pipelines.observe.view import short_name

_KINDS = ("equal", "changed", "only before", "only after")


def render_diff(found: Comparison) -> str:
    before, after = found.pages
    counts = {
        "equal": found.equal, "changed": found.changed, "only before": before - found.both, "only after": after - found.both,
    }  # fmt: skip
    folder = _common_folder([change.uri for change in found.changes])
    changes = [
        {
            "name": short_name(change.uri, folder) or change.doc_id[:12], "page": change.page_index + 1, "states": change.states,
            "similarity": change.similarity, "pieces": change.pieces, "words": change.words,
        }
        for change in found.changes
    ]  # fmt: skip
    states = [(was, now, count) for (was, now), count in found.states.most_common()]
    return page(
        "diff.html", ["report.css", "diff.css"], "diff.js", found=found, headline=_headline(found), changes=changes,
        states=states, pages=figures.slices(counts, _KINDS), similarity=figures.histogram(found.similarity),
    )  # fmt: skip


def _headline(found: Comparison) -> str:
    if not found.both:
        return "The two runs have no page in common"
    if not found.changed:
        return f"All {many(found.both, 'page')} that both runs read are equal"
    verb = "differs" if found.changed == 1 else "differ"
    return f"{found.changed:,} of {many(found.both, 'page')} that both runs read {verb}"


def _common_folder(uris: list[str]) -> str:
    folders = [uri.rpartition("/")[0] + "/" for uri in uris if "/" in uri]
    if not folders:
        return ""
    first, last = min(folders), max(folders)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, same) + 1]
