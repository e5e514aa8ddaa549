"use strict";
// Draws what the heat map leads to. Everything is in the page: nothing is loaded.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const classes = ["control", "probe", "data", "icmp", "other"];
  const classTexts = {
    control: "with the server", probe: "probe between the peers", data: "data of programs", icmp: "ICMP", other: "other",
  };
  const PASSED = 0, CHANGED = 1, ARRIVED = 2, DROPPED = 3, LOST = 4;

  // el makes an element of HTML, svg one of SVG.
  const fill = (e, attributes, children) => {
    for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
    e.append(...children.filter((c) => c !== null && c !== undefined));
    return e;
  };
  const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const quantile = (sorted, share) =>
    sorted.length ? sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] : undefined;
  const short = (x) => (x >= 1000 ? (x / 1000).toFixed(1) + "k" : x >= 10 ? Math.round(x).toString() : x.toFixed(1));
  const plain = (x) => (x >= 100 ? Math.round(x).toString() : (Math.round(x * 10) / 10).toString());

  // --- the heat map: another figure than the share -------------------------------

  const figures = {
    median: (c) => quantile(c.times, 0.5),
    p99: (c) => quantile(c.times, 0.99),
    packets: (c) => c.packets,
    relayed: (c) => c.relayed / 1000,
  };
  const cells = [...document.querySelectorAll("#heat .cell")];
  const first = cells.map((a) => ({ shade: a.querySelector("rect").getAttribute("class"), text: a.querySelector("text").textContent }));
  const legend = at("legend").innerHTML;

  function showFigure(name) {
    const of = figures[name];
    const values = cells.map((a) => of && of(data.cells[a.dataset.row][a.dataset.column]));
    const known = values.filter((v) => v > 0).map(Math.log);
    const low = Math.min(...known), high = Math.max(...known);
    const shade = (v) => (v > 0 ? "q" + (high > low ? Math.round((8 * (Math.log(v) - low)) / (high - low)) : 0) : "q0");
    cells.forEach((a, i) => {
      const none = of && values[i] === undefined;
      const c = of ? (none ? "none" : shade(values[i])) : first[i].shade;
      a.querySelector("rect").setAttribute("class", c);
      a.querySelector("text").setAttribute("class", c);
      a.querySelector("text").textContent = of ? (none ? "–" : short(values[i])) : first[i].text;
    });
    if (!of) {
      at("legend").innerHTML = legend;
      return;
    }
    const s = svg("svg", { viewBox: "0 0 330 30", width: 330, height: 30, role: "img", "aria-label": "legend" });
    for (let i = 0; i < 9; i++) s.append(svg("rect", { class: "q" + i, x: i * 330 / 9, y: 0, width: 330 / 9, height: 16 }));
    if (known.length) {
      s.append(svg("text", { x: 0, y: 28 }, short(Math.exp(low))), svg("text", { x: 330, y: 28, "text-anchor": "end" }, short(Math.exp(high))));
    }
    at("legend").replaceChildren(s);
  }
  at("figure").addEventListener("change", (e) => showFigure(e.target.value));

  // --- a cell ---------------------------------------------------------------------

  function showCell(row, column, number) {
    const cell = data.cells[row][column], from = data.names[row], to = data.names[column];
    for (const a of cells) a.classList.toggle("here", +a.dataset.row === row && +a.dataset.column === column);
    for (const t of document.querySelectorAll("#heat .labels text")) {
      t.classList.toggle("here", +t.dataset.row === row || +t.dataset.column === column);
    }
    at("cell").hidden = false;
    at("pair").textContent = `${from.name} asks ${to.name}`;
    at("about").replaceChildren(el("b", {}, from.name), ": " + from.text, el("br"), el("b", {}, to.name), ": " + to.text);
    at("spread").replaceChildren(spread(cell));
    const n = cell.times.length;
    const rows = [
      ["direct", `${n} of ${cell.runs} runs`],
      ["limit", `${plain(cell.limit)} ms = RTT(A,S) + RTT(A,B)`],
    ];
    if (n) {
      rows.push(["median", plain(quantile(cell.times, 0.5)) + " ms"], ["p99", plain(quantile(cell.times, 0.99)) + " ms"]);
    }
    rows.push(["packets", plain(cell.packets) + " a run, to open holes"], ["relayed", short(cell.relayed) + " bytes a run"]);
    at("figures").replaceChildren(...rows.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
    at("why").replaceChildren();
    if (cell.why.length) {
      at("why").append(el("h3", {}, "why runs stayed on the relay"),
        el("ul", {}, ...cell.why.map(([t, times]) => el("li", {}, `${times} × ${data.texts[t]}`))));
    }
    showRuns(cell, number);
  }

  // spread shows every run as a dot over an axis of time.
  function spread(cell) {
    const width = 640, left = 14, failed = cell.runs - cell.times.length;
    const right = failed ? width - 150 : width - 20;
    const most = Math.max(cell.limit, ...cell.times) * 1.06 || 1;
    const x = (t) => left + ((right - left) * t) / most;
    const stacks = new Map(), size = 4.2;
    const dots = cell.times.map((t) => {
      const slot = Math.round(x(t) / (2 * size));
      const level = stacks.get(slot) || 0;
      stacks.set(slot, level + 1);
      return { x: slot * 2 * size, level, t };
    });
    const tallest = Math.max(1, ...stacks.values(), Math.ceil(failed / 10));
    const squeeze = Math.min(2 * size, 130 / tallest);
    const base = Math.max(60, tallest * squeeze + 34), height = base + 34;
    const s = svg("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", style: `max-width:${width}px`, role: "img", "aria-label": "times to direct" });
    s.append(svg("path", { class: "axis", d: `M${left} ${base}H${right}` }));
    const unit = step(most);
    for (let t = 0; t <= most; t += unit) {
      s.append(svg("path", { class: "axis", d: `M${x(t)} ${base}v4` }), svg("text", { x: x(t), y: base + 17, "text-anchor": "middle" }, t));
    }
    s.append(svg("text", { x: left, y: base + 31 }, "ms from the dial until the one that asks sends through the hole; a dot a run"));
    const mark = (t, name, kind, y) => {
      if (t === undefined) return;
      s.append(svg("path", { class: kind, d: `M${x(t)} ${base}V${y + 4}` }),
        svg("text", { x: x(t) + (x(t) > right - 60 ? -4 : 4), y: y + 10, "text-anchor": x(t) > right - 60 ? "end" : "start" }, name));
    };
    mark(cell.limit, "limit", "limit", 0);
    mark(quantile(cell.times, 0.5), "median", "mark", 12);
    if (cell.times.length > 1) mark(quantile(cell.times, 0.99), "p99", "mark", 24);
    for (const d of dots) {
      s.append(svg("circle", { cx: d.x, cy: base - size - 1 - d.level * squeeze, r: size - 0.6 }, svg("title", {}, plain(d.t) + " ms")));
    }
    for (let i = 0; i < failed; i++) {
      s.append(svg("circle", { class: "relay", cx: right + 34 + (i % 10) * 11, cy: base - size - 2 - Math.floor(i / 10) * Math.min(11, squeeze + 2), r: 3.6 }));
    }
    if (failed) s.append(svg("text", { x: right + 30, y: base + 17 }, failed + " on the relay"));
    return s;
  }

  // step is a round distance between ticks.
  function step(most) {
    const power = 10 ** Math.floor(Math.log10(most / 5));
    return [1, 2, 5, 10].map((m) => m * power).find((u) => most / u <= 6);
  }

  function showRuns(cell, number) {
    at("runs").replaceChildren();
    at("sequence").replaceChildren();
    at("packet").replaceChildren();
    at("key").replaceChildren();
    at("outcome").textContent = "No run of this pair was kept with its packets.";
    const show = (run) => {
      for (const b of at("runs").children) b.setAttribute("aria-selected", b.dataset.number === String(run.number));
      at("outcome").textContent = data.texts[run.outcome];
      at("key").replaceChildren(...key(run));
      at("sequence").replaceChildren(sequence(run));
      at("packet").replaceChildren(el("p", {}, "Choose a packet to see every place that it came through."));
    };
    for (const run of cell.kept) {
      const b = el("button", { role: "tab", "data-number": run.number }, `run ${run.number}: ${run.direct ? "direct" : "relay"}`);
      b.addEventListener("click", () => show(run));
      at("runs").append(b);
    }
    const run = cell.kept.find((r) => r.number === number) || cell.kept[0];
    if (run) show(run);
  }

  // --- the sequence diagram -------------------------------------------------------

  function key(run) {
    const used = new Set(run.packets.map((p) => classes[p[1]]));
    const sample = (kind, d) => svg("svg", { width: 26, height: 12, class: kind }, svg("path", { d, class: kind === "bad" ? "x" : "" }));
    const out = [...used].map((k) => el("span", {}, sample(k, "M1 6H25"), classTexts[k]));
    out.push(el("span", {}, sample("bad", "M9 2l8 8m0 -8l-8 8"), "dropped or lost, with the reason"));
    const left = Object.entries(run.omitted || {}).map(([k, n]) => `${n} more of ${classTexts[k]}`);
    if (left.length) out.push(el("span", {}, "left out: " + left.join(", ")));
    return out;
  }

  // stops reads a packet's stops out of its numbers.
  function stops(packet) {
    const out = [];
    for (let i = 4; i < packet.length; i += 4) {
      out.push({ line: packet[i], at: packet[i + 1], fate: packet[i + 2], text: data.texts[packet[i + 3]] });
    }
    return out;
  }

  function sequence(run) {
    const packets = run.packets.map((p) => ({ name: data.texts[p[0]], kind: classes[p[1]], bytes: p[2], ttl: p[3], stops: stops(p) }));
    const gutter = 84, edge = 58, top = 54, spaces = Math.max(1, run.lines.length - 1);
    const space = Math.max(122, (at("sequence").clientWidth - gutter - 2 * edge) / spaces);
    const x = (line) => gutter + edge + line * space;
    const width = x(run.lines.length - 1) + edge;
    const { height, times, gaps } = layout(packets, top + 22);
    const s = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "sequence of packets" });
    run.lines.forEach((l, i) => {
      s.append(svg("path", { class: "life " + l.kind, d: `M${x(i)} ${top}V${height - 8}` }));
      s.append(svg("g", { class: "head " + l.kind },
        svg("rect", { x: x(i) - 54, y: 8, width: 108, height: 40, rx: l.kind === "nat" ? 2 : 12 }),
        svg("text", { x: x(i), y: l.addr ? 25 : 32 }, l.kind === "core" ? "Internet" : l.name),
        l.addr ? svg("text", { class: "addr", x: x(i), y: 40 }, l.addr) : null));
    });
    for (const t of times) s.append(svg("text", { class: "when", x: gutter - 8, y: t.y + 4 }, plain(t.at) + " ms"));
    for (const g of gaps) {
      s.append(svg("path", { class: "gap", d: `M${gutter} ${g.y}H${width - 12}` }),
        svg("text", { class: "gap-text", x: gutter - 8, y: g.y + 3.5 }, short(g.length) + " ms later"));
    }
    for (const p of packets) s.append(draw(p, x, s));
    return s;
  }

  // layout gives every stop a height: time runs downwards, at no less than what
  // the texts need, and long silences are cut short.
  function layout(packets, top) {
    const all = [];
    packets.forEach((p, i) => p.stops.forEach((stop, j) => all.push({ p, i, j, stop, start: j === 0 })));
    all.sort((a, b) => a.stop.at - b.stop.at || a.i - b.i || a.j - b.j);
    let y = top, now = all.length ? all[0].stop.at : 0;
    let lastTime = -100, free = -100; // above free there is text
    const times = [], gaps = [], said = new Set();
    for (const e of all) {
      const passed = e.stop.at - now;
      if (passed > 60) {
        gaps.push({ y: y + 16, length: passed });
        y += 34;
      } else {
        y += passed * 0.7;
      }
      now = e.stop.at;
      if (e.start) {
        y = Math.max(y, free + 15);
        free = y;
        if (y - lastTime >= 13) {
          times.push({ y, at: e.stop.at });
          lastTime = y;
        }
      } else if (e.stop.fate >= DROPPED) {
        y = Math.max(y, free + 8);
        free = y + 7;
      }
      e.stop.y = y;
      // What a NAT makes of a packet is written where it is new.
      const note = e.stop.line + " " + e.stop.text;
      if (e.stop.fate === CHANGED && !said.has(note)) {
        said.add(note);
        e.stop.note = true;
        free = Math.max(free, y + 14);
      }
    }
    return { height: y + 40, times, gaps };
  }

  function draw(p, x, diagram) {
    const from = p.stops[0], last = p.stops[p.stops.length - 1];
    const g = svg("g", { class: "packet " + p.kind, tabindex: 0 });
    const points = p.stops.map((stop, i) => {
      const before = p.stops[Math.max(0, i - 1)];
      return stop.fate === LOST ? { x: (x(before.line) + x(stop.line)) / 2, y: (before.y + stop.y) / 2 } : { x: x(stop.line), y: stop.y };
    });
    const d = points.map((q, i) => (i ? "L" : "M") + q.x.toFixed(1) + " " + q.y.toFixed(1)).join("");
    g.append(svg("path", { d }), svg("path", { class: "hit", d }));
    const ahead = p.stops.find((stop) => stop.line !== from.line);
    const right = !ahead || ahead.line > from.line;
    g.append(svg("text", { x: points[0].x + (right ? 7 : -7), y: points[0].y - 3, "text-anchor": right ? "start" : "end" },
      p.name + (p.ttl < 32 ? ` · TTL ${p.ttl}` : "")));
    p.stops.forEach((stop, i) => {
      const q = points[i], before = points[Math.max(0, i - 1)], onward = q.x >= before.x;
      if (stop.fate === CHANGED) {
        g.append(svg("circle", { cx: q.x, cy: q.y, r: 3 }));
        if (stop.note) {
          g.append(svg("text", { class: "did", x: q.x + (onward ? 6 : -6), y: q.y + 12, "text-anchor": onward ? "start" : "end" }, stop.text.slice(stop.text.indexOf("→"))));
        }
      } else if (stop.fate === ARRIVED && i > 0) {
        const angle = (Math.atan2(q.y - before.y, q.x - before.x) * 180) / Math.PI;
        g.append(svg("path", { class: "tip", d: "M0 0L-9 -4L-9 4Z", transform: `translate(${q.x} ${q.y}) rotate(${angle})` }));
      } else if (stop.fate >= DROPPED) {
        g.append(svg("path", { class: "x", d: `M${q.x - 5} ${q.y - 5}l10 10m0 -10l-10 10` }),
          svg("text", { class: "bad", x: q.x + (onward ? 9 : -9), y: q.y + 4, "text-anchor": onward ? "start" : "end" }, stop.text));
      }
    });
    const choose = () => {
      for (const other of diagram.querySelectorAll(".packet.here")) other.classList.remove("here");
      g.classList.add("here");
      diagram.classList.add("chosen");
      at("packet").replaceChildren(...describe(p, from, last));
    };
    g.addEventListener("click", choose);
    g.addEventListener("focus", choose);
    return g;
  }

  function describe(p, from, last) {
    const fates = ["passes", "", "arrives", "dropped", "lost"];
    const lines = currentLines();
    const items = p.stops.map((stop, i) => el("li", stop.fate >= DROPPED ? { class: "bad" } : {},
      el("span", { class: "at" }, plain(stop.at) + " ms "),
      el("b", {}, stop.fate === LOST ? "on the way" : lines[stop.line]),
      " " + (i === 0 ? "sends it" : fates[stop.fate]) + " " + stop.text));
    return [
      el("h4", { class: p.kind }, p.name),
      el("p", {}, `${p.bytes} bytes, TTL ${p.ttl}, ${classTexts[p.kind]}; ${plain(last.at - from.at)} ms on the way`),
      el("ol", {}, ...items),
    ];
  }

  function currentLines() {
    return [...document.querySelectorAll("#sequence .head text:first-of-type")].map((t) => t.textContent);
  }

  // --- where the address leads ----------------------------------------------------

  function follow() {
    const [from, to, number] = decodeURIComponent(location.hash.slice(1)).split("/");
    const find = (name) => data.names.findIndex((n) => n.name === name);
    const row = find(from), column = find(to);
    if (row >= 0 && column >= 0 && data.cells[row][column]) showCell(row, column, +number);
  }
  addEventListener("hashchange", () => {
    follow();
    at("cell").scrollIntoView({ behavior: "smooth", block: "start" });
  });
  if (location.hash) {
    follow();
  } else {
    // Begin with a pair that failed and has a run to show.
    const a = cells.find((c) => {
      const cell = data.cells[c.dataset.row][c.dataset.column];
      return cell.times.length < cell.runs && cell.kept.length;
    }) || cells[0];
    if (a) showCell(+a.dataset.row, +a.dataset.column);
  }
})();
