// A live table. The kernel sends the rows that changed; sorting, filtering and drawing happen here, for each page.
const ROW = 24; // pixels, as in live.css
const SPARE = 10; // rows drawn above and below those that can be seen
const ACKNOWLEDGE = 10; // updates from one acknowledgement to the next: the kernel stops without any
const WIDEST = 60; // characters of a column
const PADDING = 3; // characters beside those of a cell
const compareText = new Intl.Collator(undefined, { numeric: true }).compare;

// A cell is null, a text, a number, {t: seconds since 1970} or [text, class, link, value to sort by].
const isTime = (cell) => cell !== null && typeof cell === "object" && !Array.isArray(cell);
const textOf = (cell) => {
  if (cell === null) return "";
  if (Array.isArray(cell)) return cell[0];
  return isTime(cell) ? age(cell.t) : String(cell);
};
const valueOf = (cell) => (Array.isArray(cell) ? cell[3] ?? cell[0] : isTime(cell) ? -cell.t : cell ?? "");
const compare = (a, b) => (a === b ? 0 : typeof a === "number" && typeof b === "number" ? a - b : compareText(String(a), String(b)));

/** The length of a text in small letters: capitals and signs are wider. */
const lengthOf = (text) => text.length + (text.match(/[^\x20-\x40\x5b-\x7e]/g)?.length ?? 0) / 2;
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

function age(since) {
  const seconds = Math.max(0, Date.now() / 1000 - since);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60]])
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)}${unit}`;
  return `${Math.floor(seconds)}s`;
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  node.append(...children);
  return node;
}

/** The rows of one table in this page, and what the person chose; its views share it. */
class Store {
  constructor(model) {
    this.model = model;
    this.rows = new Map();
    this.sorted = [];
    this.stale = false;
    this.head = { columns: [], sort: [], pickers: [], optional: [], details: [], title: "reading", note: "" };
    this.chosen = { sort: null, filter: "", picked: {}, paused: false, selected: null };
    this.revision = 0;
    this.updates = 0;
    this.widths = [];
    this.ended = false;
    this.views = new Set();
    model.on("msg:custom", (message) => this.receive(message));
    const end = () => { this.ended = true; this.changed(); };
    model.on("comm:close", end);
    model.on("comm_live_update", end);
    this.ask();
  }

  ask() { this.model.send({ since: this.revision }); }

  receive(message) {
    if (message.revision <= this.revision) return; // an answer to another page
    if (message.base > this.revision) return this.ask(); // an update was missed
    if (message.clear) this.rows.clear();
    if (message.head) {
      const head = JSON.parse(message.head);
      if (head.columns.join() !== this.head.columns.join()) this.widths = head.columns.map((name) => 1.1 * lengthOf(name) + 2); // bold, and an arrow
      this.head = head;
      this.chosen.sort ??= head.sort;
    }
    for (const key of JSON.parse(message.gone)) this.rows.delete(key);
    for (const [key, cells] of JSON.parse(message.rows)) {
      this.rows.set(key, { key, cells });
      cells.forEach((cell, i) => {
        const length = isTime(cell) ? 4 : lengthOf(textOf(cell));
        if (length > this.widths[i]) this.widths[i] = Math.min(length, WIDEST);
      });
    }
    if (message.last) this.revision = message.revision;
    if (++this.updates % ACKNOWLEDGE === 0) this.ask();
    this.stale = true;
    this.changed();
  }

  /** Sort the rows: new and changed ones are put between the others, so that few changes cost few comparisons. */
  arrange() {
    this.stale = false;
    const order = (this.chosen.sort ?? []).map((name) => [this.head.columns.indexOf(name.replace(/^-/, "")), name.startsWith("-") ? -1 : 1]);
    const compareRows = (a, b) => {
      for (const [i, sign] of order) {
        const difference = compare(valueOf(a.cells[i]), valueOf(b.cells[i]));
        if (difference) return sign * difference;
      }
      return compareText(a.key, b.key);
    };
    const same = order.join() === this.order;
    this.order = order.join();
    const kept = same ? this.sorted.filter((row) => this.rows.get(row.key) === row) : [];
    const known = new Set(kept);
    this.sorted = [];
    let next = 0;
    for (const row of [...this.rows.values()].filter((row) => !known.has(row)).sort(compareRows)) {
      let [low, high] = [next, kept.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (compareRows(kept[middle], row) < 0) low = middle + 1;
        else high = middle;
      }
      while (next < low) this.sorted.push(kept[next++]);
      this.sorted.push(row);
    }
    while (next < kept.length) this.sorted.push(kept[next++]);
  }

  /** The rows that pass the filter and the pickers, in order. */
  visible() {
    if (this.stale && !this.chosen.paused) this.arrange();
    const words = this.chosen.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const picked = Object.entries(this.chosen.picked).filter(([, text]) => text).map(([name, text]) => [this.head.columns.indexOf(name), text]);
    if (!words.length && !picked.length) return this.sorted;
    return this.sorted.filter((row) => {
      row.search ??= row.cells.map((cell) => (isTime(cell) ? "" : textOf(cell))).join("\t").toLowerCase();
      return words.every((word) => row.search.includes(word)) && picked.every(([i, text]) => textOf(row.cells[i]) === text);
    });
  }

  changed() { for (const view of this.views) view.schedule(); }
}

let views = 0;
const waiting = new Set();

/** Draw the views that changed. All are measured before the first is drawn: else the page is laid out for each. */
function drawAll() {
  const changed = [...waiting];
  waiting.clear();
  for (const view of changed) view.measure();
  for (const view of changed) view.draw();
}

/** The table in one output. */
class View {
  constructor(store, root) {
    this.store = store;
    this.id = `fluobook-${++views}`;
    this.pool = [];
    this.drawn = "";
    root.classList.add("fluobook", "fluobook-live");
    root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's own keys edit and delete cells
    this.title = element("strong", { id: `${this.id}-title` });
    this.bar = element("progress", { "aria-label": "done", hidden: true });
    this.filter = element("input", { type: "search", placeholder: "filter", "aria-label": "filter rows", oninput: () => this.choose({ filter: this.filter.value }) });
    this.filter.value = store.chosen.filter;
    this.pickers = element("span");
    this.pause = element("button", { type: "button", onclick: () => this.choose({ paused: !store.chosen.paused }) });
    this.copy = element("button", { type: "button", title: "copy the selected row, or all rows that are shown", onclick: () => this.copyRows() }, "Copy");
    this.count = element("span", { class: "fluobook-count" });
    this.spoken = element("span", { class: "fluobook-spoken", role: "status" });
    this.header = element("div", { role: "row", class: "fluobook-row fluobook-head", "aria-rowindex": 1 });
    this.body = element("div", { role: "rowgroup", class: "fluobook-body", onclick: (event) => this.clicked(event) });
    this.grid = element("div", {
      role: "grid", tabindex: 0, class: "fluobook-grid", "aria-labelledby": `${this.id}-title`, "aria-readonly": "true",
      onscroll: () => this.schedule(), onkeydown: (event) => this.pressed(event),
    }, element("div", { role: "rowgroup", class: "fluobook-top" }, this.header), this.body);
    this.details = element("div", { class: "fluobook-details", role: "region", "aria-label": "row details", hidden: true });
    this.note = element("div", { class: "fluobook-note" });
    root.append(
      element("div", { class: "fluobook-bar" }, this.title, this.bar, this.count, this.filter, this.pickers, element("span", {}, this.pause, " ", this.copy), this.spoken),
      this.grid, this.details, this.note,
    );
    store.views.add(this);
    this.resized = new ResizeObserver(() => this.schedule());
    this.resized.observe(this.grid);
    this.aging = setInterval(() => this.schedule(), 1000);
    this.schedule();
  }

  remove() {
    this.store.views.delete(this);
    waiting.delete(this);
    this.resized.disconnect();
    clearInterval(this.aging);
  }

  schedule() {
    if (!waiting.size) requestAnimationFrame(drawAll);
    waiting.add(this);
  }

  measure() {
    this.letter ??= letterWidth(this.grid);
    [this.width, this.height, this.top] = [this.grid.clientWidth, this.grid.clientHeight, this.grid.scrollTop];
  }

  choose(change) {
    Object.assign(this.store.chosen, change);
    this.store.stale = true;
    this.store.changed();
    const shown = this.store.visible().length;
    this.spoken.textContent = this.store.chosen.paused ? "paused" : `${shown} rows`;
  }

  /** Which columns fit: optional ones are left out where the page is narrow, and remain in the details. */
  columns() {
    const { head, widths } = this.store;
    const least = (i) => Math.min(widths[i], 16) + PADDING;
    const shown = head.columns.map((_, i) => i).filter((i) => !head.details.includes(head.columns[i]));
    const { letter, width } = this;
    for (const name of head.optional) {
      if (sum(shown.map(least)) * letter <= width) break;
      shown.splice(shown.indexOf(head.columns.indexOf(name)), 1);
    }
    const natural = shown.map((i) => widths[i] + PADDING);
    const narrow = shown.map(least);
    const spare = width / letter - sum(narrow);
    const wanted = Math.max(1, sum(natural) - sum(narrow));
    const share = Math.max(0, Math.min(1, spare / wanted));
    return [shown, shown.map((_, n) => `${Math.floor((narrow[n] + share * (natural[n] - narrow[n])) * letter)}px`).join(" ")];
  }

  draw() {
    const { store } = this;
    const { head, chosen } = store;
    const rows = store.visible();
    this.rows = rows;
    const [shown, tracks] = this.columns();
    this.title.textContent = head.title;
    this.bar.hidden = head.bar == null;
    this.bar.value = head.bar ?? 0;
    this.count.textContent = rows.length === store.sorted.length ? `${rows.length} rows` : `${rows.length} of ${store.sorted.length} rows`;
    const pause = chosen.paused ? "Resume" : "Pause";
    if (this.pause.textContent !== pause) this.pause.textContent = pause;
    this.pause.setAttribute("aria-pressed", chosen.paused);
    const left = head.columns.filter((name) => !head.details.includes(name)).length - shown.length;
    this.note.textContent = [head.note, left ? `${left} column${left === 1 ? " does" : "s do"} not fit; the details of a row show ${left === 1 ? "it" : "them"}` : "", store.ended ? "no longer live: the kernel or its table has ended" : ""].filter(Boolean).join("\n");
    this.drawHead(shown, tracks);
    this.drawPickers();
    this.body.style.height = `${rows.length * ROW}px`;
    this.grid.setAttribute("aria-rowcount", rows.length + 1);
    this.grid.setAttribute("aria-colcount", shown.length);
    const first = Math.max(0, Math.floor(this.top / ROW) - SPARE);
    const last = Math.min(rows.length, first + Math.ceil(this.height / ROW) + 2 * SPARE);
    while (this.pool.length > Math.max(0, last - first)) this.pool.pop().remove();
    for (let i = first; i < last; i++) this.drawRow(i - first, i, rows[i], shown, tracks);
    this.drawDetails();
  }

  drawHead(shown, tracks) {
    const { head, chosen } = this.store;
    const sort = chosen.sort?.[0] ?? "";
    const state = JSON.stringify([shown, head.columns, sort, tracks]);
    if (state === this.drawn) return;
    this.drawn = state;
    this.header.style.gridTemplateColumns = tracks;
    const focused = document.activeElement?.dataset?.column;
    this.header.replaceChildren(...shown.map((i, position) => {
      const name = head.columns[i];
      const direction = sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none";
      const button = element("button", { type: "button", "data-column": name, onclick: () => this.choose({ sort: [sort === name ? `-${name}` : name, ...head.sort.filter((other) => other.replace(/^-/, "") !== name)] }) },
        name, element("span", { "aria-hidden": "true" }, { ascending: " ▲", descending: " ▼", none: "" }[direction]));
      return element("div", { role: "columnheader", "aria-colindex": position + 1, "aria-sort": direction }, button);
    }));
    if (focused) [...this.header.querySelectorAll("button")].find((button) => button.dataset.column === focused)?.focus();
    for (const row of this.pool) row.remove();
    this.pool = [];
  }

  drawPickers() {
    const { head, chosen, rows, revision } = this.store;
    if (this.picked === revision || this.pickers.contains(document.activeElement)) return;
    this.picked = revision;
    const texts = head.pickers.map((name) => {
      const i = head.columns.indexOf(name);
      const all = new Set([chosen.picked[name] ?? ""]);
      for (const row of rows.values()) all.add(textOf(row.cells[i]));
      all.delete("");
      return [...all].sort(compareText);
    });
    const state = JSON.stringify([head.pickers, texts]);
    if (state === this.offered) return;
    this.offered = state;
    this.pickers.replaceChildren(...head.pickers.map((name, n) => {
      const options = [element("option", { value: "" }, `${name}: all`), ...texts[n].map((text) => element("option", { value: text }, text))];
      const select = element("select", { "aria-label": name, onchange: () => this.choose({ picked: { ...chosen.picked, [name]: select.value } }) }, ...options);
      select.value = chosen.picked[name] ?? "";
      return select;
    }));
  }

  drawRow(slot, index, row, shown, tracks) {
    const { chosen } = this.store;
    let node = this.pool[slot];
    if (!node) {
      node = element("div", { role: "row", class: "fluobook-row" }, ...shown.map((_, i) => element("div", { role: "gridcell", "aria-colindex": i + 1 })));
      node.style.gridTemplateColumns = tracks;
      this.pool[slot] = node;
      this.body.append(node);
    }
    if (Number(node.dataset.index) !== index) {
      node.style.top = `${index * ROW}px`;
      node.id = `${this.id}-${index}`;
      node.dataset.index = index;
      node.setAttribute("aria-rowindex", index + 2);
    }
    node.setAttribute("aria-selected", row.key === chosen.selected);
    if (row.key === chosen.selected) this.grid.setAttribute("aria-activedescendant", node.id);
    shown.forEach((i, position) => {
      const cell = row.cells[i];
      const node_ = node.children[position];
      const text = textOf(cell);
      const [, tone, link] = Array.isArray(cell) ? cell : [];
      const kind = tone || (typeof cell === "number" ? "number" : "");
      if (node_.className !== kind) node_.className = kind;
      if (link) {
        if (node_.firstChild?.href === undefined || node_.textContent !== text) node_.replaceChildren(element("a", { href: link, tabindex: -1 }, text));
      } else if (node_.textContent !== text) {
        node_.textContent = text;
        node_.title = text.length > 16 ? text : "";
      }
    });
  }

  drawDetails() {
    const { head, chosen, rows } = this.store;
    const row = rows.get(chosen.selected);
    this.details.hidden = !row;
    if (!row) return;
    if (this.detailed === row) return;
    this.detailed = row;
    this.details.replaceChildren(element("dl", {}, ...head.columns.flatMap((name, i) => {
      const cell = row.cells[i];
      const text = isTime(cell) ? new Date(cell.t * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC" : textOf(cell);
      return text ? [element("dt", {}, name), element("dd", {}, text)] : [];
    })));
  }

  select(index) {
    const row = this.rows[index];
    if (!row) return;
    this.store.chosen.selected = row.key;
    const top = index * ROW;
    const height = this.grid.clientHeight - this.header.offsetHeight;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + ROW > this.grid.scrollTop + height) this.grid.scrollTop = top + ROW - height;
    this.schedule();
  }

  unselect() {
    this.store.chosen.selected = null;
    this.grid.removeAttribute("aria-activedescendant");
    this.schedule();
  }

  clicked(event) {
    const node = event.target.closest("[data-index]");
    if (!node || event.target.closest("a")) return;
    const index = Number(node.dataset.index);
    if (this.rows[index]?.key === this.store.chosen.selected) this.unselect();
    else this.select(index);
  }

  pressed(event) {
    if (event.target !== this.grid) return;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW) - 2);
    const now = this.rows.findIndex((row) => row.key === this.store.chosen.selected);
    const steps = { ArrowDown: now + 1, ArrowUp: Math.max(0, now - 1), PageDown: Math.min(this.rows.length - 1, now + page), PageUp: Math.max(0, now - page), Home: 0, End: this.rows.length - 1 };
    if (event.key in steps) this.select(steps[event.key]);
    else if (event.key === "Escape") this.unselect();
    else if (event.key === "c" && (event.ctrlKey || event.metaKey) && !String(getSelection())) this.copyRows();
    else return;
    event.preventDefault();
  }

  async copyRows() {
    const { head, rows, chosen } = this.store;
    const selected = rows.get(chosen.selected);
    const copied = selected ? [selected] : this.rows;
    const plain = (cell) => (isTime(cell) ? new Date(cell.t * 1000).toISOString() : textOf(cell));
    const lines = [head.columns, ...copied.map((row) => row.cells.map(plain))];
    try {
      await navigator.clipboard.writeText(lines.map((line) => line.join("\t")).join("\n"));
      this.spoken.textContent = `${copied.length} rows copied`;
    } catch {
      this.spoken.textContent = "the browser does not allow copying";
    }
  }
}

function letterWidth(node) {
  const sample = "kube-system/hubble-relay system:node:talos-worker-1 10.10.0.21";
  const probe = element("span", { style: "position:absolute;visibility:hidden;white-space:nowrap" }, sample);
  node.append(probe);
  const width = probe.offsetWidth / sample.length;
  probe.remove();
  return width || 8;
}

export default () => {
  let store;
  return {
    initialize({ model }) { store = new Store(model); },
    render({ el }) {
      const view = new View(store, el);
      return () => view.remove();
    },
  };
};
