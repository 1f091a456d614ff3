// Draws the Vega-Lite charts: each as wide as its place, in the colours of the page, again when the scheme changes.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("chart-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
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
    return window.drawChart(place, themed(spec), options);
  };

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
