"use strict";
// Everything is in the page already; this shows one page at a time, filters, and joins boxes with their text.
// It makes no request, and no text of a document becomes markup: nodes are cloned, strings go into textContent.
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const one = (selector, from = document) => from.querySelector(selector);
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  root.classList.add("js");

  // -- light and dark
  const themes = ["auto", "light", "dark"];
  const themeButton = one("#theme");
  const setTheme = (name) => {
    root.dataset.theme = name;
    themeButton.textContent = name === "auto" ? "Theme" : name === "light" ? "Light" : "Dark";
  };
  const nextTheme = () => setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
  themeButton.addEventListener("click", nextTheme);

  // -- keys
  const help = one("#help");
  one("#help-open").addEventListener("click", () => help.showModal());
  one("#help-close").addEventListener("click", () => help.close());

  // -- the table of failures
  const failures = all("#failure-table tbody tr");
  if (failures.length) {
    const code = one("#failure-code"), text = one("#failure-text"), count = one("#failure-count");
    const filter = () => {
      const words = text.value.trim().toLowerCase();
      let left = 0;
      for (const row of failures) {
        const fits = (!code.value || row.dataset.code === code.value) && (!words || row.textContent.toLowerCase().includes(words));
        row.hidden = !fits;
        left += fits;
      }
      count.textContent = `${left} of ${failures.length}`;
    };
    code.addEventListener("change", filter);
    text.addEventListener("input", filter);
    filter();
  }

  // -- pages
  const pages = all("article.page");
  if (!pages.length) {
    document.addEventListener("keydown", (event) => plainKey(event) === "t" && nextTheme());
    return;
  }
  const stage = one("#stage"), form = one("#filters"), inspector = one("#inspector");
  const hint = one(".hint", inspector);
  const items = new Map(all("#list li").map((item) => [item.dataset.page, item]));
  const texts = new Map(pages.map((page) => [page, page.textContent.toLowerCase()]));
  let current = null, kept = null;

  for (const page of pages) {
    for (const block of all(".block", page)) {
      const certainty = block.dataset.certainty === undefined ? null : Number(block.dataset.certainty);
      const name = certainty === null ? null : certainty >= 0.9 ? "c-high" : certainty >= 0.7 ? "c-mid" : "c-low";
      const box = boxOf(block);
      block.classList.add("o-" + block.dataset.source);
      for (const node of [block, box]) {
        if (node && name) node.classList.add(name);
        if (node && certainty !== null && certainty < 0.8) node.dataset.doubt = "";
      }
    }
  }

  function boxOf(block) {
    return one(`.box[data-block="${block.dataset.block}"]`, block.closest(".page"));
  }
  function blockOf(node) {
    const page = node.closest(".page");
    return page && one(`.block[data-block="${node.dataset.block}"]`, page);
  }

  // -- switches above the page
  const switches = element("div", "", { class: "switches", role: "toolbar", "aria-label": "What is shown" });
  const toggle = (label, title, pressed, act) => {
    const button = element("button", label, { type: "button", title, "aria-pressed": String(pressed) });
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      act(on);
    });
    switches.append(button);
    return button;
  };
  const boxes = toggle("Boxes", "Boxes on the page (b)", true, (on) => stage.classList.toggle("hide-boxes", !on));
  const order = toggle("Reading order", "A line through the blocks in reading order (o)", false, (on) => stage.classList.toggle("show-order", on));
  const fit = toggle("Whole page", "Fit the whole page (z)", false, (on) => stage.classList.toggle("fit", on));
  const colour = element("select", "", { "aria-label": "Colour by", title: "Colour by (c)" });
  for (const [value, words] of [["label", "Colour by label"], ["certainty", "Colour by certainty"], ["source", "Colour by source"]]) {
    colour.append(element("option", words, { value }));
  }
  colour.addEventListener("change", () => {
    stage.classList.toggle("by-certainty", colour.value === "certainty");
    stage.classList.toggle("by-source", colour.value === "source");
  });
  switches.append(colour, element("span", "", { class: "gap" }));
  const markdown = toggle("Markdown", "The Markdown as it is stored (m)", false, (on) => {
    for (const page of pages) {
      one(".blocks", page).hidden = on;
      one("pre.source", page).hidden = !on;
    }
  });

  // -- provenance
  const inspect = (block, keep) => {
    for (const node of all(".on", stage)) node.classList.remove("on");
    if (!block) {
      inspector.replaceChildren(hint);
      inspector.classList.remove("kept");
      return;
    }
    block.classList.add("on");
    const box = boxOf(block);
    if (box) box.classList.add("on");
    const facts = one("dl.facts", block).cloneNode(true);
    facts.hidden = false;
    inspector.replaceChildren(facts);
    inspector.classList.toggle("kept", keep);
  };
  let remembering = 0;
  const remember = (fragment) => {  // browsers bound how often an address may change
    clearTimeout(remembering);
    remembering = setTimeout(() => history.replaceState(null, "", fragment), 250);
  };
  const reveal = (node, pane) => {
    if (!node) return;
    const inner = node.getBoundingClientRect(), outer = pane.getBoundingClientRect();
    if (inner.top < outer.top) pane.scrollTop -= outer.top - inner.top + 12;
    else if (inner.bottom > outer.bottom) pane.scrollTop += Math.min(inner.bottom - outer.bottom + 12, inner.top - outer.top - 12);
  };
  const keep = (block, scroll) => {
    kept = block;
    inspect(block, true);
    if (!block) return;
    remember(`#${current.id}.${block.dataset.block}`);
    const box = boxOf(block);
    if (scroll !== "read") reveal(block, one(".read", current));
    if (scroll !== "scan") reveal(box, one(".scan", current));
  };
  stage.addEventListener("mouseover", (event) => {
    const node = event.target.closest(".box, .block");
    if (node && !kept) inspect(node.classList.contains("block") ? node : blockOf(node), false);
  });
  stage.addEventListener("mouseleave", () => kept || inspect(null));
  stage.addEventListener("click", (event) => {
    const node = event.target.closest(".box, .block");
    if (!node || String(getSelection())) return;
    const block = node.classList.contains("block") ? node : blockOf(node);
    keep(block === kept ? null : block, node === block ? "read" : "scan");
  });
  stage.addEventListener("focusin", (event) => {
    const block = event.target.closest(".block");
    if (block && !kept) inspect(block, false);
  });

  // -- one page at a time
  const visible = () => pages.filter((page) => !items.get(page.dataset.page).hidden);
  const show = (page, moveHash = true) => {
    if (page === current) return;
    if (current) current.classList.remove("shown");
    for (const item of items.values()) item.removeAttribute("aria-current");
    current = page;
    keep(null);
    if (!page) return;
    page.classList.add("shown");
    one(".page-head", page).append(switches);
    const item = items.get(page.dataset.page);
    item.setAttribute("aria-current", "true");
    const list = item.parentElement;
    if (item.offsetTop < list.scrollTop || item.offsetTop + item.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = item.offsetTop - list.clientHeight / 3;
    }
    if (moveHash) remember(`#${page.id}`);
  };
  for (const [number, item] of items) {
    item.addEventListener("click", () => show(one(`#page-${number}`)));
  }
  const step = (by) => {
    const left = visible();
    const at = left.indexOf(current);
    if (left.length) show(left[Math.min(left.length - 1, Math.max(0, at + by))]);
  };
  const stepBlock = (by) => {
    if (!current) return;
    const blocks = all(".block:not(.off)", current);
    if (!blocks.length) return;
    const at = kept ? blocks.indexOf(kept) : by > 0 ? -1 : blocks.length;
    keep(blocks[Math.min(blocks.length - 1, Math.max(0, at + by))]);
  };

  // -- filters
  const filter = () => {
    const want = Object.fromEntries(new FormData(form));
    const words = want.text.trim().toLowerCase();
    const low = want.low ? Number(want.low) : null;
    const byBlock = want.label || want.source || low !== null;
    let pageCount = 0, blockCount = 0;
    for (const page of pages) {
      let matching = 0;
      for (const block of all(".block", page)) {
        const fits = (!want.label || block.dataset.label === want.label) && (!want.source || block.dataset.source === want.source)
          && (low === null || (block.dataset.certainty !== undefined && Number(block.dataset.certainty) < low));
        block.classList.toggle("off", !fits);
        const box = boxOf(block);
        if (box) box.classList.toggle("off", !fits);
        matching += fits;
      }
      const fits = (!want.state || page.dataset.state === want.state) && (!words || texts.get(page).includes(words)) && (!byBlock || matching > 0);
      items.get(page.dataset.page).hidden = !fits;
      pageCount += fits;
      blockCount += fits ? matching : 0;
    }
    one("#filter-count").textContent = `${pageCount} of ${pages.length} pages, ${blockCount} blocks`;
    one("#nomatch").hidden = pageCount > 0;
    inspector.hidden = pageCount === 0;
    if (!current || items.get(current.dataset.page).hidden) show(visible()[0] || null, false);
    if (kept && kept.classList.contains("off")) keep(null);
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());

  const fromHash = () => {
    const [, number, block] = /^#page-(\d+)(?:\.(\d+))?$/.exec(location.hash) || [];  // #page-4, or #page-4.2 for a block
    const page = number && one(`#page-${number}`);
    if (!page) return;
    if (items.get(page.dataset.page).hidden) form.reset();
    setTimeout(() => {
      show(page, false);
      form.scrollIntoView();
      if (block) keep(one(`.block[data-block="${block}"]`, page));
    });
  };
  addEventListener("hashchange", fromHash);

  // -- keyboard
  function plainKey(event) {
    const typing = event.target.closest && event.target.closest("input, select, textarea");
    if (event.key === "Escape") return "Escape";
    return event.ctrlKey || event.metaKey || event.altKey || typing || help.open ? "" : event.key;
  }
  const keys = {
    ArrowRight: () => step(1), j: () => step(1), ArrowLeft: () => step(-1), k: () => step(-1),
    n: () => stepBlock(1), p: () => stepBlock(-1),
    b: () => boxes.click(), o: () => order.click(), z: () => fit.click(), m: () => markdown.click(), t: nextTheme,
    c: () => { colour.selectedIndex = (colour.selectedIndex + 1) % colour.length; colour.dispatchEvent(new Event("change")); },
    "/": () => one("input[name=text]", form).focus(), "?": () => help.showModal(),
    Escape: () => { keep(null); if (document.activeElement) document.activeElement.blur(); },
  };
  document.addEventListener("keydown", (event) => {
    const act = Object.hasOwn(keys, plainKey(event)) && keys[plainKey(event)];
    if (!act) return;
    if (event.key !== "Escape") event.preventDefault();
    act();
  });

  filter();
  if (!current) show(pages[0], false);
  fromHash();
})();
