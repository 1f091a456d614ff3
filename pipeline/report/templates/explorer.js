// The semantic zoom explorer: two maps of the same texts, one slider, one chosen text and its nearest others in each.
// Everything was computed before; this looks up, draws on two canvases, and never makes markup of data.
"use strict";
(() => {
  const source = document.getElementById("explorer-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const byId = (id) => document.getElementById(id);
  const bytes = (packed) => Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0)).buffer;
  const count = data.texts.length, near = data.nearest, depth = data.levels.length;
  const labels = data.labels.map((packed) => new Uint16Array(bytes(packed)));
  const views = data.views.map((view) => ({
    ...view,
    neighbours: new Uint16Array(bytes(view.neighbours)),
    cosines: new Int8Array(bytes(view.cosines)),
    places: new Uint16Array(bytes(view.places)),
  }));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const signs = { same: "●", mid: "▲", near: "◆", far: "✕" };
  const state = { chosen: data.first, step: 0, closeUp: false };

  const shortened = (name, most) => ([...name].length > most ? `${[...name].slice(0, most - 1).join("")}…` : name);
  const path = (text, most = Infinity) => labels.map((column, level) => shortened(data.classes[level][column[text]], most)).join(" › ");
  // How many levels two texts share, from the coarsest on: labels of a tree agree down to some level and part there.
  const shared = (a, b) => {
    let levels = 0;
    while (levels < depth && labels[levels][a] === labels[levels][b]) levels += 1;
    return levels;
  };
  const relation = (a, b) => {
    const levels = shared(a, b);
    return levels === depth ? "same" : levels === 0 ? "far" : levels === 1 ? "near" : "mid";
  };
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // One side: a method's map and list.
  const panels = [...document.querySelectorAll("#zoom .panel")].map((root, side) => ({
    root, side,
    view: views[Math.min(side, views.length - 1)],
    select: root.querySelector("select"), canvas: root.querySelector("canvas"), tip: root.querySelector(".tip"),
    shares: root.querySelector(".shares"), count: root.querySelector(".count"), list: root.querySelector(".nearest"),
    x: new Float32Array(count), y: new Float32Array(count), // where points are drawn now, in pixels
    from: null, began: 0, frame: 0, grid: new Map(),
  }));

  const stepOf = (view) => Math.min(state.step, view.dims.length - 1);
  const nearest = (view, text) => {
    const start = (stepOf(view) * count + text) * near;
    return [...view.neighbours.subarray(start, start + near)].map((other, i) => ({ other, cosine: view.cosines[start + i] / 100 }));
  };

  // Where points belong, in pixels: the whole map, or four times as large around the chosen text.
  const targets = (panel) => {
    const { width, height } = panel.canvas.getBoundingClientRect();
    const places = panel.view.places, start = stepOf(panel.view) * count * 2, edge = 12;
    const x = new Float32Array(count), y = new Float32Array(count);
    const spread = Math.min(width, height) - 2 * edge, zoom = state.closeUp ? 4 : 1;
    const centre = state.closeUp
      ? [places[start + 2 * state.chosen] / 65535, places[start + 2 * state.chosen + 1] / 65535] : [0.5, 0.5];
    for (let i = 0; i < count; i += 1) {
      x[i] = width / 2 + (places[start + 2 * i] / 65535 - centre[0]) * (width - 2 * edge) * zoom;
      y[i] = height / 2 + (places[start + 2 * i + 1] / 65535 - centre[1]) * (state.closeUp ? spread : height - 2 * edge) * zoom;
    }
    return { x, y };
  };

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(["same", "mid", "near", "far", "dust", "ink", "paper", "muted"].map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
  };

  const mark = (pen, kind, x, y, r) => {
    pen.beginPath();
    if (kind === "same") pen.arc(x, y, r, 0, 7);
    else if (kind === "mid") { pen.moveTo(x, y - r * 1.2); pen.lineTo(x + r * 1.1, y + r * 0.9); pen.lineTo(x - r * 1.1, y + r * 0.9); pen.closePath(); }
    else if (kind === "near") { pen.moveTo(x, y - r * 1.25); pen.lineTo(x + r * 1.25, y); pen.lineTo(x, y + r * 1.25); pen.lineTo(x - r * 1.25, y); pen.closePath(); }
    else { pen.moveTo(x - r, y - r); pen.lineTo(x + r, y + r); pen.moveTo(x + r, y - r); pen.lineTo(x - r, y + r); }
  };

  const drawPoints = (pen, panel, paint) => {
    const groups = { far: [], near: [], mid: [], same: [] };
    for (let i = 0; i < count; i += 1) groups[relation(state.chosen, i)].push(i);
    const size = state.closeUp ? 5 : count > 1500 ? 2.4 : 4;
    for (const [kind, members] of Object.entries(groups)) {
      pen.fillStyle = kind === "far" ? paint.dust : paint[kind];
      pen.globalAlpha = kind === "far" ? 0.75 : 0.9;
      const side = kind === "far" ? size : size * 1.35;
      for (const i of members) pen.fillRect(panel.x[i] - side / 2, panel.y[i] - side / 2, side, side);
    }
    pen.globalAlpha = 1;
  };

  // Where a class's texts are densest: the middle of the fullest of 24 px cells. A median of scattered groups would lie
  // where none of them is.
  const densest = (panel, members) => {
    const cells = new Map();
    for (const i of members) {
      const cell = `${Math.floor(panel.x[i] / 24)},${Math.floor(panel.y[i] / 24)}`;
      const sum = cells.get(cell) || { n: 0, x: 0, y: 0 };
      sum.n += 1; sum.x += panel.x[i]; sum.y += panel.y[i];
      cells.set(cell, sum);
    }
    const full = [...cells.values()].reduce((best, sum) => (sum.n > best.n ? sum : best), { n: 0 });
    return { x: full.x / full.n, y: full.y / full.n };
  };

  // The names of the coarsest classes where most of their texts are; one that would lie on another is left out.
  const drawNames = (pen, panel, paint, width, height) => {
    if (data.classes[0].length > 60) return;
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 3.5;
    pen.lineJoin = "round";
    const members = data.classes[0].map(() => []);
    for (let i = 0; i < count; i += 1) members[labels[0][i]].push(i);
    const taken = [{ x: panel.x[state.chosen], y: panel.y[state.chosen], half: 12 }];
    const most = width < 420 ? 14 : 24;
    const order = members.map((list, label) => ({ list, label })).filter(({ list }) => list.length).sort((a, b) => b.list.length - a.list.length);
    for (const { list, label } of order) {
      const short = shortened(data.classes[0][label], most);
      const half = pen.measureText(short).width / 2;
      const { x: place, y } = densest(panel, list);
      const x = Math.max(half + 4, Math.min(width - half - 4, place));
      if (y < 14 || y > height - 6 || taken.some((box) => Math.abs(box.x - x) < box.half + half + 4 && Math.abs(box.y - y) < 15)) continue;
      taken.push({ x, y, half });
      pen.strokeStyle = paint.paper;
      pen.strokeText(short, x, y);
      pen.fillStyle = paint.ink;
      pen.fillText(short, x, y);
    }
  };

  const drawChosen = (pen, panel, paint) => {
    const [x, y] = [panel.x[state.chosen], panel.y[state.chosen]];
    const found = nearest(panel.view, state.chosen);
    pen.lineWidth = 1.2;
    for (const { other } of found) {
      pen.strokeStyle = paint[relation(state.chosen, other)];
      pen.beginPath(); pen.moveTo(x, y); pen.lineTo(panel.x[other], panel.y[other]); pen.stroke();
    }
    for (const { other } of found) {
      const kind = relation(state.chosen, other);
      mark(pen, kind, panel.x[other], panel.y[other], 4.5);
      pen.lineWidth = kind === "far" ? 5 : 3;
      pen.strokeStyle = paint.paper;
      pen.stroke();
      pen.lineWidth = 2.5;
      pen.fillStyle = pen.strokeStyle = paint[kind];
      if (kind === "far") pen.stroke(); else pen.fill();
    }
    pen.beginPath(); pen.arc(x, y, 7.5, 0, 7);
    pen.lineWidth = 5; pen.strokeStyle = paint.paper; pen.stroke();
    pen.lineWidth = 2.5; pen.strokeStyle = paint.ink; pen.stroke();
  };

  const draw = (panel) => {
    const { width, height } = panel.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (panel.canvas.width !== w || panel.canvas.height !== h) [panel.canvas.width, panel.canvas.height] = [w, h];
    const pen = panel.canvas.getContext("2d"), paint = colours();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    drawPoints(pen, panel, paint);
    if (!panel.from) drawNames(pen, panel, paint, width, height);
    drawChosen(pen, panel, paint);
  };

  // A grid of cells for hit-testing: a pointer looks into nine cells, not at every text.
  const CELL = 14;
  const index = (panel) => {
    panel.grid.clear();
    for (let i = 0; i < count; i += 1) {
      const cell = `${Math.floor(panel.x[i] / CELL)},${Math.floor(panel.y[i] / CELL)}`;
      if (panel.grid.has(cell)) panel.grid.get(cell).push(i); else panel.grid.set(cell, [i]);
    }
  };
  const at = (panel, x, y) => {
    let best = -1, closest = CELL * CELL;
    const [column, row] = [Math.floor(x / CELL), Math.floor(y / CELL)];
    for (let c = column - 1; c <= column + 1; c += 1) {
      for (let r = row - 1; r <= row + 1; r += 1) {
        for (const i of panel.grid.get(`${c},${r}`) || []) {
          const distance = (panel.x[i] - x) ** 2 + (panel.y[i] - y) ** 2;
          if (distance < closest) [best, closest] = [i, distance];
        }
      }
    }
    return best;
  };

  const DURATION = 450;
  const move = (panel, animated) => {
    cancelAnimationFrame(panel.frame);
    const goal = targets(panel);
    panel.tip.hidden = true;
    if (!animated || still.matches) {
      [panel.x, panel.y, panel.from] = [goal.x, goal.y, null];
      index(panel);
      draw(panel);
      return;
    }
    panel.from = { x: panel.x.slice(), y: panel.y.slice() };
    panel.began = performance.now();
    const tick = (now) => {
      const share = Math.min(1, Math.max(0, (now - panel.began) / DURATION)), eased = 1 - (1 - share) ** 3;
      for (let i = 0; i < count; i += 1) {
        panel.x[i] = panel.from.x[i] + (goal.x[i] - panel.from.x[i]) * eased;
        panel.y[i] = panel.from.y[i] + (goal.y[i] - panel.from.y[i]) * eased;
      }
      if (share < 1) panel.frame = requestAnimationFrame(tick); else { panel.from = null; index(panel); }
      draw(panel);
    };
    panel.frame = requestAnimationFrame(tick);
  };

  const list = (panel) => {
    const found = nearest(panel.view, state.chosen);
    const sharing = (level) => found.filter(({ other }) => shared(state.chosen, other) > level).length;
    const ends = [...new Set([depth - 1, 0])];
    panel.count.textContent = `Of the ${found.length} nearest: ${ends.map((level, i) => `${sharing(level)} ${i ? "" : "share "}its ${data.levels[level]}`).join(", ")}`;
    panel.list.replaceChildren(...found.map(({ other, cosine }) => {
      const kind = relation(state.chosen, other), item = element("li"), button = element("button");
      button.type = "button";
      button.dataset.text = other;
      const words = element("span", "words", data.texts[other]), where = element("bdi", "path", path(other, 32));
      words.dir = "auto";
      where.title = path(other);
      const sign = element("span", `sign ${kind}`, signs[kind]);
      sign.setAttribute("aria-label", spoken[kind]);
      sign.setAttribute("role", "img");
      button.append(sign, element("span", "cosine", cosine.toFixed(2)), words, where);
      button.addEventListener("click", () => choose(other));
      item.append(button);
      return item;
    }));
  };

  const describe = (panel) => {
    const { view } = panel, dims = view.dims[stepOf(view)], shares = view.shares[stepOf(view)];
    const ends = [...new Set([0, depth - 1])];
    panel.shares.textContent = `${dims} dims, all ${count.toLocaleString("en")} texts: ${ends.map((level, i) => `${(shares[level] * 100).toFixed(1)} % ${i ? "" : `of the ${near} nearest share `}the ${data.levels[level]}`).join(", ")}`;
    panel.canvas.setAttribute("aria-label", `Map of ${count} texts by ${view.name} at ${dims} dims. Arrow keys choose the nearest text in that direction.`);
  };

  const show = (animated) => {
    byId("zoom-text").textContent = data.texts[state.chosen];
    byId("zoom-path").textContent = path(state.chosen);
    const dims = data.dims[state.step];
    byId("zoom-dims").textContent = `${dims} dims, ${(dims * 4).toLocaleString("en")} bytes`;
    byId("zoom-dim").setAttribute("aria-valuetext", `${dims} dimensions`);
    for (const panel of panels) { describe(panel); list(panel); move(panel, animated); }
  };

  const choose = (text) => {
    state.chosen = text;
    show(state.closeUp);
  };

  // Arrow keys: the nearest text within 45 degrees of the direction.
  const towards = (panel, dx, dy) => {
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i += 1) {
      const x = panel.x[i] - panel.x[state.chosen], y = panel.y[i] - panel.y[state.chosen];
      const along = x * dx + y * dy, across = Math.abs(x * dy - y * dx);
      if (i !== state.chosen && along > 0 && across <= along && along + 2 * across < least) [best, least] = [i, along + 2 * across];
    }
    return best;
  };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const hover = (panel, event) => {
    const box = panel.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const text = at(panel, x, y);
    panel.tip.hidden = text < 0;
    if (text < 0) return;
    panel.tip.textContent = `${data.texts[text]} (${path(text, 40)})`;
    const right = x > box.width / 2;
    panel.tip.style.left = right ? "" : `${x + 12}px`;
    panel.tip.style.right = right ? `${box.width - x + 12}px` : "";
    panel.tip.style.top = `${Math.max(0, y - 10)}px`;
  };

  for (const panel of panels) {
    for (const [i, view] of views.entries()) {
      const option = element("option", "", view.name);
      option.value = i;
      panel.select.append(option);
    }
    panel.select.value = views.indexOf(panel.view);
    panel.select.addEventListener("change", () => {
      panel.view = views[panel.select.value];
      describe(panel); list(panel); move(panel, true);
    });
    panel.canvas.addEventListener("pointermove", (event) => hover(panel, event));
    panel.canvas.addEventListener("pointerleave", () => { panel.tip.hidden = true; });
    panel.canvas.addEventListener("click", (event) => {
      const box = panel.canvas.getBoundingClientRect(), text = at(panel, event.clientX - box.left, event.clientY - box.top);
      if (text >= 0) choose(text);
    });
    panel.canvas.addEventListener("keydown", (event) => {
      if (!(event.key in arrows)) return;
      event.preventDefault();
      const text = towards(panel, ...arrows[event.key]);
      if (text >= 0) choose(text);
    });
  }

  // Search: a combobox over texts that hold every word typed.
  const search = byId("zoom-search"), found = byId("zoom-found");
  const folded = data.texts.map((text) => text.toLocaleLowerCase());
  let active = -1;
  const close = () => { found.hidden = true; active = -1; search.setAttribute("aria-expanded", "false"); search.removeAttribute("aria-activedescendant"); };
  const pick = (option) => { choose(Number(option.dataset.text)); search.value = ""; close(); };
  const lookUp = () => {
    const words = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const hits = [];
    for (let i = 0; words.length && i < count && hits.length < 20; i += 1) if (words.every((word) => folded[i].includes(word))) hits.push(i);
    found.replaceChildren(...hits.map((text, place) => {
      const option = element("li", "", data.texts[text]);
      option.id = `zoom-found-${place}`;
      option.dir = "auto";
      option.dataset.text = text;
      option.setAttribute("role", "option");
      option.addEventListener("mousedown", (event) => { event.preventDefault(); pick(option); });
      return option;
    }));
    active = -1;
    found.hidden = !hits.length;
    search.setAttribute("aria-expanded", String(hits.length > 0));
  };
  search.addEventListener("input", lookUp);
  search.addEventListener("blur", close);
  search.addEventListener("keydown", (event) => {
    const options = [...found.children];
    if (event.key === "Escape") { close(); return; }
    if (event.key === "Enter" && options.length) { event.preventDefault(); pick(options[Math.max(active, 0)]); return; }
    if (!options.length || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    active = (active + (event.key === "ArrowDown" ? 1 : options.length - (active < 0 ? 0 : 1))) % options.length;
    options.forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
    options[active].scrollIntoView({ block: "nearest" });
    search.setAttribute("aria-activedescendant", options[active].id);
  });

  const spoken = { same: `same ${data.levels[depth - 1]}`, far: `other ${data.levels[0]}` };
  if (depth > 1) spoken.near = `same ${data.levels[0]}, other ${data.levels[1]}`;
  if (depth > 2) spoken.mid = `same ${data.levels[depth - 2]}, other ${data.levels[depth - 1]}`;
  for (const kind of ["same", "mid", "near", "far"].filter((name) => name in spoken)) {
    const item = element("li");
    const sign = element("span", `sign ${kind}`, signs[kind]);
    sign.setAttribute("aria-hidden", "true");
    item.append(sign, element("span", "", spoken[kind]));
    byId("zoom-legend").append(item);
  }

  const slider = byId("zoom-dim");
  slider.max = data.dims.length - 1;
  slider.addEventListener("input", () => { state.step = Number(slider.value); show(true); });
  byId("zoom-another").addEventListener("click", () => choose(Math.floor(Math.random() * count)));
  byId("zoom-close").addEventListener("change", (event) => { state.closeUp = event.target.checked; show(true); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach(draw));
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; panels.forEach((panel) => move(panel, false)); } });
  slider.value = 0;
  show(false);
})();
