// Two entries of a task, seed by seed, from the values that stand in the page.
"use strict";

(() => {
  const { address, remember } = window.lthbench;
  const data = JSON.parse(document.getElementById("compared").textContent);
  const form = document.querySelector(".chooser");
  const place = document.getElementById("comparison");
  const { a, b } = form.elements;

  const text = (value, digits, signed = false) => {
    const said = value.toFixed(digits);
    if (!Number(said)) return (0).toFixed(digits);
    return (signed && value > 0 ? `+${said}` : said).replace("-", "\u2212");
  };

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  // The t interval of a mean; none for fewer than three seeds, or where all are alike.
  const interval = (values) => {
    const n = values.length;
    const centre = mean(values);
    if (n < data.least || Math.max(...values) - Math.min(...values) <= data.tie) return null;
    const spread = Math.sqrt(values.reduce((s, v) => s + (v - centre) ** 2, 0) / (n - 1) / n);
    return [centre - data.t[n - 1] * spread, centre + data.t[n - 1] * spread];
  };

  // The exact two-sided p of "alike" over all flips of signs.
  const flips = (values) => {
    const n = values.length;
    if (n < data.tested || n > 16) return null;
    const seen = values.reduce((sum, value) => sum + value, 0);
    let above = 0;
    for (let mask = 0; mask < 2 ** n; mask += 1) {
      let sum = 0;
      for (let i = 0; i < n; i += 1) sum += mask & (1 << i) ? values[i] : -values[i];
      if (Math.abs(sum) >= Math.abs(seen) - 1e-9) above += 1;
    }
    return above / 2 ** n;
  };

  const common = (first, second) => first.seeds.filter((seed) => second.seeds.includes(seed));

  const seeds = (n) => `${n} ${n === 1 ? "seed" : "seeds"}`;

  // An entry's values on some of its seeds.
  const on = (chosen, entry, values) => values && chosen.map((seed) => values[entry.seeds.indexOf(seed)]);

  const differences = (first, second, one, other) => {
    const both = common(first, second);
    if (!one || !other || !both.length) return null;
    const subtracted = on(both, second, other);
    return on(both, first, one).map((value, index) => value - subtracted[index]);
  };

  const element = (name, content = "", attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = content;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const row = (label, first, second, one, other, scale, digits, unit) => {
    const made = element("tr");
    const gaps = differences(first, second, one, other);
    made.append(element("th", label, { scope: "row" }));
    // Without a common seed each column is of its own seeds, and there is no difference.
    const both = common(first, second);
    for (const [entry, all] of [[first, one], [second, other]]) {
      const values = both.length ? on(both, entry, all) : all;
      const told = values ? text(scale * mean(values), digits) : "n/a";
      made.append(element("td", told, { class: "num" }));
    }
    let said = "n/a";
    if (gaps) {
      const bounds = interval(gaps)?.map((end) => scale * end);
      said = text(scale * mean(gaps), digits, true);
      if (bounds) said += ` [${text(bounds[0], digits, true)}, ${text(bounds[1], digits, true)}]`;
      if (unit) said += ` ${unit}`;
    }
    made.append(element("td", said, { class: "num" }));
    return made;
  };

  const shown = (first, second) => {
    if (first.kind !== second.kind) {
      return [element("p", "One of them is scored untrained, the other after training: they are never compared.", { class: "verdict" })];
    }
    const untrained = first.kind === "untrained";
    const table = element("table", "", { id: "difference" });
    const n = common(first, second).length;
    const over = n ? `on the ${n} common ${n === 1 ? "seed" : "seeds"}` : "no common seed";
    table.append(element("caption", `${first.label} minus ${second.label}, paired by seed, ${over}`));
    const head = element("tr");
    for (const name of ["", first.label, second.label, "difference"]) {
      head.append(name ? element("th", name, { scope: "col" }) : element("td"));
    }
    const body = element("tbody");
    const headline = untrained ? "headline accuracy" : data.scored;
    body.append(row(headline, first, second, first.headline, second.headline, 1, 3, ""));
    for (const [density, name] of data.rungs) {
      const one = first.rungs[density];
      const other = second.rungs[density];
      if (one && other) {
        body.append(row(`at ${name} %`, first, second, one, other, 100, data.digits, "points"));
      }
    }
    const thead = element("thead");
    thead.append(head);
    table.append(thead, body);
    const region = element("div", "", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Paired differences" });
    region.append(table);
    const made = [summary(first, second), region, about(first, second)];
    const overlap = data.overlaps[`${first.id} ${second.id}`] ?? data.overlaps[`${second.id} ${first.id}`];
    if (overlap) made.push(told(overlap));
    return made;
  };

  const summary = (first, second) => {
    const gaps = differences(first, second, first.headline, second.headline);
    if (!gaps) return element("p", "No score that both have.", { class: "verdict" });
    const bounds = interval(gaps);
    const [better, worse] = mean(gaps) >= 0 ? [first, second] : [second, first];
    const apart = bounds && (bounds[0] > 0 || bounds[1] < 0);
    const tested = flips(gaps);
    const p = tested === null ? `${seeds(gaps.length)} ${gaps.length === 1 ? "is" : "are"} too few for a test` : `p ${probability(tested)}`;
    const ahead = text(Math.abs(mean(gaps)), 3);
    const what = first.kind === "untrained" ? "headline accuracy" : data.scored;
    const sure = apart ? "its 95 % interval leaves out zero" : "its 95 % interval holds zero";
    const known = bounds ? `${sure}; ${p}` : p;
    return element("p", `${better.label} is ahead of ${worse.label} by ${ahead} in ${what}: ${known}.`, { class: "verdict" });
  };

  const probability = (p) => (p < 0.001 ? "<.001" : p === 1 ? "1" : p.toFixed(3).slice(1));

  const about = (first, second) => {
    const made = element("p", "", { class: "note" });
    for (const one of [first, second]) {
      const cost = one.cost === null ? "unknown cost" : `cost ${one.cost}`;
      made.append(element("a", one.label, { href: one.href }), `: ${one.level}, ${cost}, ${one.division}. `);
    }
    return made;
  };

  const told = (overlap) => {
    const made = element("p");
    made.append(element("b", "Overlap of their masks: "), overlap.text, " ");
    made.append(element("a", "Evidence", { href: overlap.href }));
    return made;
  };

  const apply = () => {
    remember("a", a.value);
    remember("b", b.value);
    place.replaceChildren(...shown(data.entries[a.value], data.entries[b.value]));
  };

  const offered = (field, value) => [...field.options].some((option) => option.value === value);
  if (offered(a, address.get("a"))) a.value = address.get("a");
  if (offered(b, address.get("b"))) b.value = address.get("b");
  if (a.value === b.value) b.selectedIndex = a.selectedIndex === 0 ? Math.min(1, b.options.length - 1) : 0;
  form.elements.swap.addEventListener("click", () => {
    [a.value, b.value] = [b.value, a.value];
    apply();
  });
  for (const field of [a, b]) field.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
