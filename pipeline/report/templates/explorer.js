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
  const state = { chosen: data.first, step: 0, colour: "label", dimmed: -1 };

  // The state in the URL's fragment: #explorer:text=12&dims=64&left=joint&right=pca*&colour=label
  const restore = () => {
    const [place, given] = decodeURIComponent(location.hash.slice(1)).split(":");
    if (place !== "explorer" || !given) return {};
    const asked = new URLSearchParams(given), text = Number(asked.get("text"));
    if (Number.isInteger(text) && text >= 0 && text < count) state.chosen = text;
    if (data.dims.includes(Number(asked.get("dims")))) state.step = data.dims.indexOf(Number(asked.get("dims")));
    if (asked.get("colour") === "relation") state.colour = "relation";
    return { left: asked.get("left"), right: asked.get("right") };
  };
  const remember = () => {
    const kept = new URLSearchParams({
      text: state.chosen, dims: data.dims[state.step], left: panels[0].view.name, right: panels[1].view.name, colour: state.colour,
    });
    history.replaceState(null, "", `#explorer:${kept}`);
  };

  const shortened = (name, most) => ([...name].length > most ? `${[...name].slice(0, most - 1).join("")}…` : name);
  const path = (text, most = Infinity) => labels.map((column, level) => shortened(data.classes[level][column[text]], most)).join(" › ");
  // How many levels two texts share, from the coarsest on: labels of a tree agree down to some level and part there.
  const shared = (a, b) => {
    let levels = 0;
    while (levels < depth && labels[levels][a] === labels[levels][b]) levels += 1;
    return levels;
  };
  // In words: the finest level they share, and the one at which they part.
  const inWords = (a, b) => {
    const levels = shared(a, b);
    if (levels === depth) return `same ${data.levels[depth - 1]}`;
    return levels ? `same ${data.levels[levels - 1]}, other ${data.levels[levels]}` : `other ${data.levels[0]}`;
  };
  const relation = (a, b) => {
    const levels = shared(a, b);
    return levels === depth ? "same" : levels === 0 ? "far" : levels === 1 ? "near" : "mid";
  };
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // The most frequent coarse labels have a colour each, by size; what is left shares one.
  const COLOURS = 12;
  const sizes = data.classes[0].map(() => 0);
  for (let i = 0; i < count; i += 1) sizes[labels[0][i]] += 1;
  const bySize = sizes.map((size, label) => ({ size, label })).filter(({ size }) => size).sort((a, b) => b.size - a.size || a.label - b.label);
  const hue = new Int8Array(sizes.length).fill(-1);
  bySize.slice(0, COLOURS).forEach(({ label }, place) => { hue[label] = place; });

  const asked = restore();
  const viewNamed = (name, otherwise) => views.find((view) => view.name === name) || views[Math.min(otherwise, views.length - 1)];
  // One side: a method's map and list.
  const panels = [...document.querySelectorAll("#zoom .panel")].map((root, side) => ({
    root, side,
    view: viewNamed(side ? asked.right : asked.left, side),
    select: root.querySelector("select"), canvas: root.querySelector("canvas"), tip: root.querySelector(".tip"),
    shares: root.querySelector(".shares"), count: root.querySelector(".count"), list: root.querySelector(".nearest"),
    x: new Float32Array(count), y: new Float32Array(count), // where points are drawn now, in pixels
    from: null, began: 0, frame: 0, zoom: 1, centre: [0.5, 0.5], drag: null,
  }));

  const stepOf = (view) => Math.min(state.step, view.dims.length - 1);
  const nearest = (view, text) => {
    const start = (stepOf(view) * count + text) * near;
    return [...view.neighbours.subarray(start, start + near)].map((other, i) => ({ other, cosine: view.cosines[start + i] / 100 }));
  };

  // Where points belong, in pixels: places between 0 and 1 around the panel's centre, times its zoom.
  const EDGE = 12;
  const span = (panel) => {
    const { width, height } = panel.canvas.getBoundingClientRect();
    return [width, height, (width - 2 * EDGE) * panel.zoom, (height - 2 * EDGE) * panel.zoom];
  };
  const placeOf = (panel, text) => {
    const at = (stepOf(panel.view) * count + text) * 2, places = panel.view.places;
    return [places[at] / 65535, places[at + 1] / 65535];
  };
  const targets = (panel) => {
    const [width, height, across, down] = span(panel), places = panel.view.places, start = stepOf(panel.view) * count * 2;
    const x = new Float32Array(count), y = new Float32Array(count), [cx, cy] = panel.centre;
    for (let i = 0; i < count; i += 1) {
      x[i] = width / 2 + (places[start + 2 * i] / 65535 - cx) * across;
      y[i] = height / 2 + (places[start + 2 * i + 1] / 65535 - cy) * down;
    }
    return { x, y };
  };
  // Zoom around a pixel, which stays where it is.
  const zoomAt = (panel, factor, px, py, animated) => {
    const zoom = Math.min(40, Math.max(1, panel.zoom * factor)), [width, height, across, down] = span(panel);
    const held = [panel.centre[0] + (px - width / 2) / across, panel.centre[1] + (py - height / 2) / down];
    const grown = zoom / panel.zoom;
    panel.zoom = zoom;
    panel.centre = zoom === 1 ? [0.5, 0.5] : [held[0] - (px - width / 2) / (across * grown), held[1] - (py - height / 2) / (down * grown)];
    move(panel, animated);
  };
  const whole = (panel) => { panel.zoom = 1; panel.centre = [0.5, 0.5]; move(panel, true); };

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const named = [..."same mid near far dust ink paper muted".split(" "), ...Array.from({ length: COLOURS }, (_, i) => `k${i}`)];
    return Object.fromEntries(named.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  };

  const mark = (pen, kind, x, y, r) => {
    pen.beginPath();
    if (kind === "same") pen.arc(x, y, r, 0, 7);
    else if (kind === "mid") { pen.moveTo(x, y - r * 1.2); pen.lineTo(x + r * 1.1, y + r * 0.9); pen.lineTo(x - r * 1.1, y + r * 0.9); pen.closePath(); }
    else if (kind === "near") { pen.moveTo(x, y - r * 1.25); pen.lineTo(x + r * 1.25, y); pen.lineTo(x, y + r * 1.25); pen.lineTo(x - r * 1.25, y); pen.closePath(); }
    else { pen.moveTo(x - r, y - r); pen.lineTo(x + r, y + r); pen.moveTo(x + r, y - r); pen.lineTo(x - r, y + r); }
  };

  // Points in groups of one colour each, the least telling first, so that a colour is set a few times per frame only.
  const groups = () => {
    if (state.colour === "relation") {
      const made = { far: [], near: [], mid: [], same: [] };
      for (let i = 0; i < count; i += 1) made[relation(state.chosen, i)].push(i);
      return Object.entries(made).map(([kind, members]) => ({ paint: kind === "far" ? "dust" : kind, members, large: kind !== "far" }));
    }
    const made = Array.from({ length: COLOURS + 1 }, () => []);
    for (let i = 0; i < count; i += 1) made[hue[labels[0][i]] + 1].push(i);
    return made.map((members, place) => ({ paint: place ? `k${place - 1}` : "dust", members, large: false, place: place - 1 }));
  };
  let grouped = groups();
  const drawPoints = (pen, panel, paint, width, height) => {
    const size = (count > 5000 ? 2 : count > 1500 ? 2.6 : 4) * Math.min(2.2, panel.zoom ** 0.4);
    for (const { paint: name, members, large, place } of grouped) {
      pen.fillStyle = paint[name];
      pen.globalAlpha = state.dimmed >= 0 && place !== state.dimmed ? 0.12 : 0.85;
      const side = large ? size * 1.35 : size;
      for (const i of members) {
        const x = panel.x[i], y = panel.y[i];
        if (x > -4 && y > -4 && x < width + 4 && y < height + 4) pen.fillRect(x - side / 2, y - side / 2, side, side);
      }
    }
    pen.globalAlpha = 1;
  };

  // Where the texts of each class that are on the canvas are densest: the middle of the fullest of 24 px cells, by class,
  // with how many are there. A median of scattered groups would lie where none of them is.
  const WIDE = 24;
  const densest = (panel, width, height) => {
    const columns = Math.ceil(width / WIDE), cells = columns * Math.ceil(height / WIDE), classes = data.classes[0].length;
    const n = new Int32Array(classes * cells), x = new Float32Array(n.length), y = new Float32Array(n.length);
    const shown = new Int32Array(classes);
    for (let i = 0; i < count; i += 1) {
      const px = panel.x[i], py = panel.y[i], label = labels[0][i];
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const cell = label * cells + Math.floor(py / WIDE) * columns + Math.floor(px / WIDE);
      n[cell] += 1; x[cell] += px; y[cell] += py; shown[label] += 1;
    }
    const found = [];
    for (let label = 0; label < classes; label += 1) {
      if (!shown[label]) continue;
      let full = label * cells;
      for (let cell = full; cell < (label + 1) * cells; cell += 1) if (n[cell] > n[full]) full = cell;
      if (n[full] < 2 && panel.zoom === 1) continue; // a few scattered texts have no middle: the legend names them
      found.push({ label, shown: shown[label], x: x[full] / n[full], y: y[full] / n[full] });
    }
    return found.sort((a, b) => b.shown - a.shown);
  };

  // A name cut where it still differs from every other: two that begin alike keep their ends instead.
  const distinct = (label, most) => {
    const name = data.classes[0][label], short = shortened(name, most);
    if (short === name || !data.classes[0].some((other, i) => i !== label && shortened(other, most) === short)) return short;
    const letters = [...name], head = Math.ceil(most / 3);
    return `${letters.slice(0, head).join("")}…${letters.slice(head - most + 1).join("")}`;
  };
  // What the buttons over a map's upper right corner cover, in pixels.
  const BUTTONS = { wide: 40, low: 116 };
  // The names of the coarsest classes where most of their texts are; one that would lie on another goes above
  // or below it, or is left out.
  const drawNames = (pen, panel, paint, width, height) => {
    if (data.classes[0].length > 60) return;
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 3.5;
    pen.lineJoin = "round";
    const taken = [{ x: panel.x[state.chosen], y: panel.y[state.chosen], half: 12 }];
    const most = width < 420 ? 16 : 26;
    for (const { label, x: place, y: middle } of densest(panel, width, height)) {
      const short = distinct(label, most), half = pen.measureText(short).width / 2;
      const placed = [0, -18, 18].map((beside) => {
        const y = middle + beside, buttons = y < BUTTONS.low ? BUTTONS.wide : 0;
        return { y, x: Math.max(half + 4, Math.min(width - buttons - half - 4, place)) };
      });
      const free = placed.find(({ x, y }) => y >= 14 && y <= height - 6
        && !taken.some((box) => Math.abs(box.x - x) < box.half + half + 4 && Math.abs(box.y - y) < 15));
      if (!free) continue;
      const { x, y } = free;
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
    drawPoints(pen, panel, paint, width, height);
    if (!panel.from) drawNames(pen, panel, paint, width, height);
    drawChosen(pen, panel, paint);
  };

  // The text nearest to a pixel, if any is within 14 pixels: to look at 20,000 takes less than to draw one.
  const at = (panel, x, y) => {
    let best = -1, closest = 14 * 14;
    for (let i = 0; i < count; i += 1) {
      const distance = (panel.x[i] - x) ** 2 + (panel.y[i] - y) ** 2;
      if (distance < closest) { best = i; closest = distance; }
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
      if (share < 1) panel.frame = requestAnimationFrame(tick); else panel.from = null;
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
      const kind = relation(state.chosen, other), said = inWords(state.chosen, other);
      const button = element(
        "button", { type: "button", "data-text": other },
        element("span", { class: `sign ${kind}`, role: "img", "aria-label": said, title: said }, signs[kind]),
        element("span", { class: "cosine" }, cosine.toFixed(2)),
        element("span", { class: "words", dir: "auto" }, data.texts[other]),
        element("bdi", { class: "path", title: path(other) }, path(other, 32)),
      );
      button.addEventListener("click", () => choose(other));
      return element("li", {}, button);
    }));
  };

  const describe = (panel) => {
    const { view } = panel, dims = view.dims[stepOf(view)], shares = view.shares[stepOf(view)];
    const ends = [...new Set([0, depth - 1])];
    panel.shares.textContent = `${dims} dims, all ${count.toLocaleString("en")} texts: ${ends.map((level, i) => `${(shares[level] * 100).toFixed(1)}\u00a0% ${i ? "" : `of the ${near} nearest share `}the ${data.levels[level]}`).join(", ")}`;
    panel.canvas.setAttribute("aria-label", `Map of ${count} texts by ${view.name} at ${dims} dims. Arrow keys choose the nearest text in that direction, plus and minus zoom, 0 shows all.`);
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
    if (state.colour === "relation") grouped = groups();
    show(false);
    remember();
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

  // Where a pointer is on a map, in pixels, and how wide the map is.
  const inside = (panel, event) => {
    const box = panel.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top, box.width];
  };
  const hover = (panel, event) => {
    const [x, y, width] = inside(panel, event), text = at(panel, x, y);
    panel.tip.hidden = text < 0;
    if (text < 0) return;
    const how = text === state.chosen ? [] : [element("span", { class: "how" }, inWords(state.chosen, text))];
    const words = element("span", { class: "words" }, data.texts[text]);
    panel.tip.replaceChildren(words, element("bdi", { class: "where" }, path(text, 40)), ...how);
    const right = x > width / 2;
    panel.tip.style.left = right ? "" : `${x + 12}px`;
    panel.tip.style.right = right ? `${width - x + 12}px` : "";
    panel.tip.style.top = `${Math.max(0, y - 10)}px`;
  };

  for (const panel of panels) {
    panel.select.append(...views.map((view, i) => element("option", { value: i }, view.name)));
    panel.select.value = views.indexOf(panel.view);
    panel.select.addEventListener("change", () => {
      panel.view = views[panel.select.value];
      describe(panel); list(panel); move(panel, true); remember();
    });
    panel.canvas.addEventListener("pointerdown", (event) => {
      panel.drag = { x: event.clientX, y: event.clientY, centre: panel.centre, moved: false };
      if (panel.zoom > 1) panel.canvas.setPointerCapture(event.pointerId);
    });
    panel.canvas.addEventListener("pointermove", (event) => {
      const { drag } = panel;
      if (!drag || panel.zoom === 1 || !event.buttons) { hover(panel, event); return; }
      const [, , across, down] = span(panel), dx = event.clientX - drag.x, dy = event.clientY - drag.y;
      drag.moved = drag.moved || Math.hypot(dx, dy) > 4;
      if (!drag.moved) return;
      panel.centre = [drag.centre[0] - dx / across, drag.centre[1] - dy / down];
      move(panel, false);
    });
    panel.canvas.addEventListener("pointerleave", () => { panel.tip.hidden = true; });
    panel.canvas.addEventListener("click", (event) => {
      if (panel.drag && panel.drag.moved) return;
      const [x, y] = inside(panel, event), text = at(panel, x, y);
      if (text >= 0) choose(text);
    });
    panel.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== panel.canvas) return; // the page scrolls until the map is clicked
      event.preventDefault();
      const [x, y] = inside(panel, event);
      zoomAt(panel, Math.exp(-event.deltaY / 300), x, y, false);
    }, { passive: false });
    const zoomed = (factor) => { const { width, height } = panel.canvas.getBoundingClientRect(); zoomAt(panel, factor, width / 2, height / 2, true); };
    const [closer, farther, all] = [() => zoomed(1.6), () => zoomed(1 / 1.6), () => whole(panel)];
    panel.root.querySelectorAll(".zooms button").forEach((button, i) => button.addEventListener("click", [closer, farther, all][i]));
    panel.canvas.addEventListener("dblclick", all);
    const keys = { "+": closer, "=": closer, "-": farther, 0: all };
    panel.canvas.addEventListener("keydown", (event) => {
      if (event.key in keys) keys[event.key]();
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
      const attributes = { id: `zoom-found-${place}`, role: "option", dir: "auto", "data-text": text };
      const option = element("li", attributes, data.texts[text]);
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
  if (depth === 3) spoken.mid = `same ${data.levels[1]}, other ${data.levels[2]}`;
  if (depth > 3) spoken.mid = `same ${data.levels[1]} or finer, other ${data.levels[depth - 1]}`;
  for (const kind of ["same", "mid", "near", "far"].filter((name) => name in spoken)) {
    const sign = element("span", { class: `sign ${kind}`, "aria-hidden": "true" }, signs[kind]);
    byId("zoom-legend").append(element("li", {}, sign, element("span", {}, spoken[kind])));
  }
  // The coarse labels by name, most frequent first: hovering or focusing one dims the others.
  const names = byId("zoom-labels");
  const key = (colour) => element("span", { class: "key", style: `--key: var(--${colour})` });
  for (const { label, size } of bySize.slice(0, COLOURS)) {
    const name = data.classes[0][label];
    const button = element(
      "button", { type: "button", title: name }, key(`k${hue[label]}`), element("bdi", {}, shortened(name, 40)),
      element("span", { class: "size" }, size.toLocaleString("en")),
    );
    const dim = (place) => { state.dimmed = place; panels.forEach(draw); };
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => dim(hue[label]));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => dim(-1));
    names.append(element("li", {}, button));
  }
  const smaller = element("span", {}, `${bySize.length - COLOURS} smaller`);
  if (bySize.length > COLOURS) names.append(element("li", {}, key("dust"), smaller));
  const colouring = byId("zoom-colour");
  colouring.options[0].textContent = data.levels[0];
  colouring.value = state.colour;
  const recolour = () => {
    state.colour = colouring.value;
    names.hidden = state.colour !== "label";
    grouped = groups();
    panels.forEach(draw);
  };
  colouring.addEventListener("change", () => { recolour(); remember(); });

  const slider = byId("zoom-dim");
  slider.max = data.dims.length - 1;
  slider.addEventListener("input", () => { state.step = Number(slider.value); show(true); remember(); });
  byId("zoom-another").addEventListener("click", () => choose(Math.floor(Math.random() * count)));
  byId("zoom-close").addEventListener("click", () => {
    for (const panel of panels) { panel.zoom = 4; panel.centre = placeOf(panel, state.chosen); move(panel, true); }
  });
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => panels.forEach((panel) => move(panel, false)));
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; panels.forEach((panel) => move(panel, false)); } });
  slider.value = state.step;
  recolour();
  show(false);
  if (location.hash.startsWith("#explorer:")) byId("zoom").scrollIntoView();
})();
