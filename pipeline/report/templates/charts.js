// Draws the Vega-Lite charts: each as wide as its place, in the colours of the page, again when the scheme changes.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("chart-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const wide = matchMedia("(min-width: 78rem)"), contents = document.getElementById("contents");
  const unfold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", unfold);
  unfold();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // "theme:c0" stands for the CSS variable --c0, wherever it is in a specification.
  const themed = (value) => {
    if (typeof value === "string") return value.startsWith("theme:") ? colour(value.slice(6)) : value;
    if (Array.isArray(value)) return value.map(themed);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, key === "datasets" ? inner : themed(inner)]));
  };

  const config = () => {
    const [ink, muted, line] = ["ink", "muted", "line"].map(colour);
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      aria: false, // the place has the one description; a thousand marks need none each
      view: { stroke: null },
      axis: {
        domainColor: muted, gridColor: line, tickColor: muted, labelColor: ink, titleColor: ink,
        labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", titlePadding: 6,
      },
      legend: { labelColor: ink, titleColor: ink, titleFontWeight: "normal" },
      text: { color: ink },
    };
  };

  const draw = (name, spec) => {
    const place = document.getElementById(`chart-${name}`);
    const options = { ast: true, actions: false, renderer: "svg", config: config(), tooltip: { theme: "custom" } };
    // The place has the description (role img); what is drawn inside it is hidden from the accessibility tree.
    return window.drawChart(place, themed(spec), options).then(() => place.querySelector("svg").setAttribute("aria-hidden", "true"));
  };

  // Beside each chart: its picture as a file, made here of what is drawn. Beside each table: its cells, for a spreadsheet.
  const saved = (content, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const svgOf = (place) => {
    const svg = place.querySelector("svg").cloneNode(true);
    svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    svg.style.background = colour("paper");
    return new XMLSerializer().serializeToString(svg);
  };
  const png = (place, name) => {
    const { width, height } = place.querySelector("svg").getBoundingClientRect(), image = new Image(), scale = 2;
    image.addEventListener("load", () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [width * scale, height * scale];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => saved(blob, "image/png", `${name}.png`));
    });
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgOf(place))}`;
  };
  const button = (label, action) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    made.addEventListener("click", action);
    return made;
  };
  const tools = (...buttons) => {
    const made = Object.assign(document.createElement("div"), { className: "tools" });
    made.append(...buttons);
    return made;
  };
  for (const name of Object.keys(specs)) {
    const place = document.getElementById(`chart-${name}`);
    const svg = button("SVG", () => saved(svgOf(place), "image/svg+xml", `${name}.svg`)), image = button("PNG", () => png(place, name));
    for (const one of [svg, image]) one.setAttribute("aria-label", `Save chart ${name} as ${one.textContent}`);
    place.closest("figure").append(tools(svg, image));
  }
  for (const table of document.querySelectorAll("main table")) {
    const copy = button("Copy table", async () => {
      const rows = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t")).join("\n");
      await navigator.clipboard.writeText(rows);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy table"; }, 1500);
    });
    table.closest(".scroll").after(tools(copy));
  }

  let drawing = Promise.resolve();
  const drawAll = () => {
    const scheme = dark.matches ? "dark" : "light";
    const every = Object.entries(specs);
    drawing = drawing
      .then(() => Promise.all(every.map(([name, spec]) => draw(name, spec))))
      .then(() => { document.documentElement.dataset.charts = scheme; });
  };
  dark.addEventListener("change", drawAll);
  drawAll();
})();
