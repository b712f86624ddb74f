"""The report in headless Chromium: it loads clean, asks nobody, filters, obeys keys, prints, and hostile text stays text."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from pipelines.observe.summary import Failure
from tests.observe.conftest import Browser
from tests.observe.made import block, report, shown_page

HOSTILE = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=1'>",
    "<svg/onload=window.hacked=1>",
    "[click](javascript:window.hacked=1) ![x](http://127.0.0.1:9/a.png) <http://127.0.0.1:9/>",
    "--> </style></script></title></svg><script>window.hacked=1</script><!--",
    "]]></textarea></pre><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    '" onmouseover="window.hacked=1" x="',
    "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt; &#x3c;script&#x3e;",
    "<a href='http://127.0.0.1:9/'>a</a><base href='http://127.0.0.1:9/'><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<style>*{display:none}</style><link rel=stylesheet href='http://127.0.0.1:9/x.css'>",
    "W" * 4000,
    "\u202eright to left override\u202c مرحبا بالعالم שלום",
    "👩‍👩‍👧‍👦 🏴‍☠️ z̸̢̛a̷l̶g̵o̷",
    "a\u2028b\u0085c\ufeff\ufffd",
]  # fmt: skip


def pages_to_filter() -> list:  # type: ignore[type-arg]
    return [
        shown_page(1, 0, [block("title", "Alpha heading"), block("text", "common words", 140)]),
        shown_page(1, 1, [block("table", "t", html="<table><tr><td>cell</td></tr></table>", source="pixels", confidence=0.97)]),
        shown_page(
            2, 0, [block("text", "common", source="pixels", confidence=0.55), block("footer", "f", 700)], state="degraded"
        ),
        shown_page(3, 4, [], state="failed", reason="failed", error_code="ENGINE_FAILED", error_stage="recognize"),
        shown_page(4, 0, [block("text", "both were read", source="pixels", confidence=0.99, agreement=0.31)]),
    ]


@pytest.fixture(scope="module")
def opened(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    failures = [
        Failure("/in/a.pdf", "a" * 64, None, "DAMAGED_DOCUMENT", "no header"),
        Failure("/in/document-3.pdf", f"{3:064x}", 4, "ENGINE_FAILED", "it said no"),
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(pages_to_filter(), failures, "source:\n  dpi: 1\n"), "utf-8")
    browser.open(path)
    return browser


def left(browser: Browser) -> list[str]:
    return browser.js("return [...document.querySelectorAll('#list li:not([hidden]) button')].map(b => b.innerText)")  # type: ignore[no-any-return]


def choose(browser: Browser, **wanted: str) -> list[str]:
    """Sets filters as a person would leave them, clears the others; what the list shows then."""
    browser.js(
        """const form = document.querySelector('#filters'); form.reset();
           for (const [name, value] of Object.entries(arguments[0])) form.elements[name].value = value;
           form.dispatchEvent(new Event('input'));""", wanted
    )  # fmt: skip
    return [" ".join(text.split()[:3]) for text in left(browser)]


def test_it_loads_clean_and_asks_nobody(opened: Browser) -> None:
    opened.until(lambda: opened.js("return document.querySelector('article.shown') !== null"), "the first page")
    for _ in range(5):
        opened.keys("j")
    assert opened.console() == []
    assert [url for url in opened.requests() if not url.startswith("file:")] == []
    assert len([url for url in opened.requests() if url.startswith("file:")]) <= 1
    assert opened.js("return document.documentElement.scrollWidth <= innerWidth")
    ids = opened.js("return [...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))
    nameless = """return [...document.querySelectorAll('button, input, select, a, [role=img]')].filter(node =>
        !(node.innerText || '').trim() && !node.ariaLabel && !node.title && !(node.labels || []).length).length"""
    assert opened.js(nameless) == 0


def test_filters(opened: Browser) -> None:
    first, second, third, fourth, fifth = (
        f"document-{doc}.pdf page {page}," for doc, page in [(1, 1), (1, 2), (2, 1), (3, 5), (4, 1)]
    )
    assert choose(opened) == [first, second, third, fourth, fifth]
    assert choose(opened, state="degraded") == [third]
    assert choose(opened, label="table") == [second]
    assert choose(opened, source="pixels") == [second, third, fifth]
    assert choose(opened, low="0.8") == [third, fifth]  # the fifth by its agreement
    assert choose(opened, text="COMMON") == [first, third]
    assert choose(opened, text="common", source="pixels") == [third]
    assert opened.js("return document.querySelector('#filter-count').textContent") == "1 of 5 pages, 1 blocks"
    assert opened.js("return document.querySelectorAll('article.shown .block.off').length") == 1
    assert opened.js("return document.querySelectorAll('article.shown .box.off').length") == 1
    assert choose(opened, text="no such words") == []
    assert opened.js("return [!document.querySelector('#nomatch').hidden, document.querySelector('article.shown')]") == [
        True,
        None,
    ]
    assert len(choose(opened)) == 5


def test_failures_filter_and_lead_to_their_page(opened: Browser) -> None:
    rows = "return [...document.querySelectorAll('#failure-table tbody tr')].map(row => row.hidden)"
    opened.js("""const code = document.querySelector('#failure-code'); code.value = 'ENGINE_FAILED';
                 code.dispatchEvent(new Event('change'));""")
    assert opened.js(rows) == [True, False]
    opened.js("document.querySelector('#failure-table a').click()")
    opened.until(lambda: opened.js("return document.querySelector('article.shown').id") == "page-4", "the page that failed")
    opened.js("const code = document.querySelector('#failure-code'); code.value = ''; code.dispatchEvent(new Event('change'))")
    assert opened.js(rows) == [False, False]


def test_keys_choose_pages_and_blocks_and_show_where_a_block_came_from(opened: Browser) -> None:
    choose(opened)
    for _ in range(6):
        opened.keys("k")
    shown = "return document.querySelector('article.shown').id"
    assert opened.js(shown) == "page-1"
    opened.keys("j", "j")
    assert opened.js(shown) == "page-3"
    opened.keys("n")
    facts = "return document.querySelector('#inspector').innerText.replace(/\\s+/g, ' ')"
    assert "confidence 0.55" in opened.js(facts)
    assert "source pixels" in opened.js(facts)
    assert opened.js("return [...document.querySelectorAll('.on')].map(n => n.dataset.block)") == ["1", "1"]  # text and box
    opened.keys("n")
    assert "label footer" in opened.js(facts)
    opened.js("document.querySelector('article.shown .box').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert "confidence 0.55" in opened.js(facts)
    opened.js("location.hash = 'page-1.2'")
    opened.until(lambda: opened.js("return document.querySelector('.block.on')?.textContent.includes('common words')"), "a link")
    opened.js("location.hash = 'page-3'")
    opened.until(lambda: opened.js(shown) == "page-3", "a link to a page")
    opened.keys("m")
    assert opened.js("return document.querySelector('article.shown pre.source').innerText.includes('common')")
    opened.keys("m", "b")
    assert opened.js("return getComputedStyle(document.querySelector('article.shown .box:not(.on)')).display") == "none"
    opened.keys("b")
    opened.keys("/")
    opened.keys("alpha")
    assert len(left(opened)) == 1  # typed into the search box: no key did anything else
    opened.keys("\ue00c")
    choose(opened)


_CONTRAST = """
const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255, v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const background = (node) => { const layers = [];
  for (let at = node; at; at = at.parentElement) layers.unshift(rgba(getComputedStyle(at).backgroundColor));
  return layers.reduce((below, top) => over(top, below), [255, 255, 255]); };
const poor = new Set();
let looked = 0;
for (const node of document.querySelectorAll('body *')) {
  if (!node.checkVisibility() || node.closest('svg, .off, [aria-hidden=true]')) continue;
  if (![...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())) continue;
  const style = getComputedStyle(node), behind = background(node), front = over(rgba(style.color), behind);
  const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05), large = parseFloat(style.fontSize) >= 24;
  looked += 1;
  if (ratio < (large ? 3 : 4.5)) poor.add(`${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 20)} ${ratio}`);
}
return [looked > 60, ...poor];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_contrast(opened: Browser, theme: str) -> None:
    opened.js("document.documentElement.dataset.theme = arguments[0]", theme)
    try:
        for number in range(1, 6):
            opened.js("document.querySelector(`#list li[data-page='${arguments[0]}']`).click()", number)
            assert opened.js(_CONTRAST) == [True]
    finally:
        opened.js("document.documentElement.dataset.theme = 'auto'")


def test_it_prints_every_page(opened: Browser, tmp_path: Path) -> None:
    import pymupdf

    data = opened.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})["data"]
    with pymupdf.open("pdf", base64.b64decode(data)) as printed:
        text = " ".join(page.get_text() for page in printed)
        assert len(printed) >= 6
    for words in ("Alpha heading", "both were read", "ENGINE_FAILED", "DAMAGED_DOCUMENT"):
        assert words in text


def test_hostile_text_injects_nothing_and_is_all_there(browser: Browser, tmp_path: Path) -> None:
    pages, failures = [], []
    for number, text in enumerate(HOSTILE):
        labels = ("text", "title", "list", "code", "formula")
        blocks = [
            block(label, text, 40 + 70 * i, level=1, raw=text, native_label=text, engine=text) for i, label in enumerate(labels)
        ]
        table = f"<table onclick='window.hacked=1'><tr><td style='x' onclick='window.hacked=1'>{text}</td></tr></table>{text}"
        blocks.append(block("table", "t", 400, html=table))
        pages.append(
            shown_page(number, 0, blocks, state="degraded", uri=f"/in/{text}.pdf", flags=[text], error_code=text,
                       error_stage=text, error_message=text)
        )  # fmt: skip
        failures.append(Failure(f"/in/{text}", f"{number:064x}", 0, text, text))
    path = tmp_path / "hostile.html"
    path.write_bytes(report(pages, failures, "\n".join(HOSTILE)).encode("utf-8", "replace"))
    browser.open(path)
    browser.until(lambda: browser.js("return document.querySelector('article.shown') !== null"), "the first page")
    for _ in HOSTILE:
        browser.keys("j", "n", "n")
    browser.js("for (const node of document.querySelectorAll('*')) { node.dispatchEvent(new Event('mouseover')); node.click && "
               "node.closest('article') && node.click(); }")  # fmt: skip
    assert browser.js("return typeof window.hacked") == "undefined"
    assert browser.console() == []
    assert [url for url in browser.requests() if not url.startswith("file:")] == []
    assert browser.js("return document.scripts.length") == 1
    assert browser.js("return document.querySelectorAll('style').length") == 1
    assert browser.js("return document.querySelectorAll('iframe, base, link, form:not(#filters), object, embed').length") == 0
    assert browser.js("return [...document.querySelectorAll('meta[http-equiv]')].length") == 1
    away = "return [...document.querySelectorAll('[href], [src]')].map(n => n.getAttribute('href') || n.getAttribute('src'))"
    assert not [url for url in browser.js(away) if not url.startswith(("#", "data:image/webp;base64,"))]
    attributes = "return [...document.querySelectorAll('*')].flatMap(n => n.getAttributeNames())"
    assert not {name for name in browser.js(attributes) if name.startswith("on") or name in ("style", "srcdoc")}
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    for number, text in enumerate(HOSTILE, 1):
        said = browser.js(f"return document.querySelector('#page-{number} .block .body').textContent")
        assert "".join(said.split()).replace("\ufeff", "") == "".join(text.split()).replace("\ufeff", ""), json.dumps(text)


def test_a_narrow_screen_has_no_sideways_scroll(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "narrow.html"
    path.write_text(report(pages_to_filter()), "utf-8")
    for width in (360, 768, 1024, 1920):
        browser.open(path, width=width)
        assert browser.js("return document.documentElement.scrollWidth <= innerWidth"), width
    assert browser.console() == []
