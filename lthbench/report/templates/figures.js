// Draws the figures of a page from the JSON that stands beside each of them.
"use strict";

(() => {
  const narrow = matchMedia("(max-width: 34rem)");
  const coarse = matchMedia("(pointer: coarse)");
  const config = { responsive: true, displayModeBar: false, displaylogo: false };

  // The page's own type, told to plotly: it measures a name before the page's styles reach it, and
  // a legend as wide as the name in other type cuts it off.
  const family = () => getComputedStyle(document.body).fontFamily;

  // What a small screen changes: fewer names on the axis, smaller type, no dragging to zoom.
  const fitted = (layout) => {
    const small = narrow.matches;
    const xaxis = { ...layout.xaxis };
    if (small && xaxis.tickvals && xaxis.tickvals.length > 4) {
      const keep = (_, index) => (xaxis.tickvals.length - 1 - index) % 2 === 0;
      xaxis.ticktext = layout.xaxis.ticktext.filter(keep);
      xaxis.tickvals = layout.xaxis.tickvals.filter(keep);
    }
    return {
      ...layout,
      xaxis,
      font: { ...layout.font, family: family(), size: small ? 11 : layout.font.size },
      margin: small ? { ...layout.margin, l: 44, r: 16 } : layout.margin,
      dragmode: small || coarse.matches ? false : "zoom",
    };
  };

  const draw = (element) => {
    const { traces, layout } = JSON.parse(document.getElementById(element.dataset.figure).textContent);
    return Plotly.react(element, traces, fitted(layout), config);
  };

  const elements = [...document.querySelectorAll("[data-figure]")];
  if (!elements.length) return;
  if (typeof Plotly === "undefined") {
    for (const element of elements) {
      element.classList.add("missing");
      element.textContent = "The chart needs assets/plotly.min.js; the tables do not.";
    }
    return;
  }
  const all = () => Promise.all(elements.map(draw));
  narrow.addEventListener("change", all);
  all().then(() => { document.documentElement.dataset.drawn = String(elements.length); });
})();
