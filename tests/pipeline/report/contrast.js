// Texts whose contrast with what is behind them is below WCAG's AA: 4.5, of large text 3. Texts in charts too, which axe skips.
(() => {
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const bad = new Map();
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length || e.closest("script,style")) continue;
    const s = getComputedStyle(e), drawn = e.closest("svg"), c = parse(drawn ? s.fill : s.color);
    if (c.length < 3 || c[3] === 0) continue;
    const [a, b] = [lum(c), lum(ground(e))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(s.fontSize) >= 24 || (parseFloat(s.fontSize) >= 18.66 && Number(s.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) bad.set(`${e.tagName}.${e.getAttribute("class")} ${e.textContent.slice(0, 20)} ${s.fill && drawn ? s.fill : s.color}`, ratio.toFixed(2));
  }
  return [...bad];
})()
