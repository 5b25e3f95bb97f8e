"""The page's one script: what a pointer, a finger or the arrow keys find in a figure. It reads the data attributes that
`style.Drawing.svg` writes, adds nothing with an id, and loads nothing. Without it the page says the same, more slowly.
"""

CSS = """
svg[data-axes] { outline-offset: 3px; } svg[data-axes]:focus:not(:focus-visible) { outline: none; }
svg .dim { opacity: .15; } svg circle.here { stroke: #1d1f21; stroke-width: 1.4; }
.tip { position: fixed; z-index: 9; left: 0; top: 0; max-width: min(320px, calc(100vw - 16px)); padding: 7px 10px;
  background: #1d1f21; color: #fff; font-size: .8125rem; line-height: 1.4; border-radius: 4px; pointer-events: none;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tip[hidden] { display: none; } .tip div:first-child { font-weight: 650; }
@media (prefers-reduced-motion: no-preference) { svg [data-series] { transition: opacity .12s; } }
@media print { .tip { display: none; } svg .dim { opacity: 1; } }
"""

SCRIPT = r"""
(() => {
  "use strict";
  const NS = "http://www.w3.org/2000/svg", NEAR_POINT = 9, NEAR_LINE = 22;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);
  let clear = () => {}, place = () => {};

  const tokens = (v) => {
    for (const [unit, size] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]])
      if (Math.abs(v) >= 0.1 * size && Math.abs(v) >= 1000) return +(v / size).toPrecision(3) + unit;
    return String(+v.toPrecision(3));
  };
  const format = {
    tokens, nats: (v) => v.toFixed(4), times: (v) => v.toFixed(2) + "x", number: (v) => String(+v.toPrecision(3)),
  };
  const value = (share, [low, high, scale]) =>
    scale === "log" ? low * (high / low) ** share : low + share * (high - low);

  // Everything in a figure that has something to tell: places, and lines as their vertices.
  const itemsOf = (svg) => [...svg.querySelectorAll("[data-tip]")].map((el) => {
    const item = { el, text: el.dataset.tip, series: el.dataset.series };
    if (el.tagName === "circle") return { ...item, at: [[+el.getAttribute("cx"), +el.getAttribute("cy")]] };
    const path = el.querySelector(":scope > path");
    const d = path ? path.getAttribute("d") : "";
    const at = [...d.matchAll(/([ML])\s*(-?[\d.]+)\s+(-?[\d.]+)/g)].map((m) => [+m[2], +m[3], m[1] === "M"]);
    return { ...item, line: true, at };
  });

  const nearestOn = (item, x, y) => {
    let best = { distance: Infinity };
    item.at.forEach(([bx, by, start], i) => {
      let px = bx, py = by;
      if (item.line && i && !start) {
        const [ax, ay] = item.at[i - 1];
        const along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2 || 1);
        const share = Math.min(1, Math.max(0, along));
        px = ax + share * (bx - ax);
        py = ay + share * (by - ay);
      }
      const distance = Math.hypot(x - px, y - py);
      if (distance < best.distance) best = { distance, x: px, y: py, item };
    });
    return best;
  };

  const find = (items, x, y) => {
    let best = null;
    for (const item of items) {
      const hit = nearestOn(item, x, y);
      const rank = item.line ? hit.distance + NEAR_POINT : hit.distance;  // a point before the line through it
      if (hit.distance < (item.line ? NEAR_LINE : NEAR_POINT) && (!best || rank < best.rank)) best = { ...hit, rank };
    }
    return best;
  };

  const setUp = (svg) => {
    const axes = JSON.parse(svg.dataset.axes);
    const title = svg.querySelector(":scope > title");
    if (title) { svg.setAttribute("aria-label", title.textContent); title.remove(); }
    const dot = document.createElementNS(NS, "circle");
    dot.setAttribute("r", "3.2");
    dot.setAttribute("fill", "#1d1f21");
    dot.style.display = "none";
    dot.style.pointerEvents = "none";
    svg.append(dot);
    let items = null, chosen = -1;

    const hide = () => {
      tip.hidden = true;
      dot.style.display = "none";
      for (const el of svg.querySelectorAll(".dim, .here")) el.classList.remove("dim", "here");
    };
    const readout = ({ x, y, item }) => {
      if (!item.line) return [];
      for (const { box: [left, top, width, height], x: ax, y: ay } of axes) {
        if (x < left - 1 || x > left + width + 1 || y < top - 1 || y > top + height + 1) continue;
        const at = (share, axis) => `${axis[4].split("\n")[0]}: ${format[axis[3]](value(share, axis))}`;
        return [at((x - left) / width, ax), at(1 - (y - top) / height, ay)];
      }
      return [];
    };
    const show = (hit) => {
      clear();
      clear = hide;
      const lines = [...hit.item.text.split("\n"), ...readout(hit)];
      tip.replaceChildren(...lines.map((text) => {
        const row = document.createElement("div");
        row.textContent = text;
        return row;
      }));
      for (const el of svg.querySelectorAll("[data-series]"))
        el.classList.toggle("dim", el.dataset.series !== hit.item.series);
      if (hit.item.line) {
        dot.setAttribute("cx", hit.x);
        dot.setAttribute("cy", hit.y);
        dot.style.display = "";
      } else hit.item.el.classList.add("here");
      tip.hidden = false;
      place = () => {
        const at = new DOMPoint(hit.x, hit.y).matrixTransform(svg.getScreenCTM());
        const { width, height } = tip.getBoundingClientRect();
        const left = at.x + 14 + width < innerWidth - 8 ? at.x + 14 : Math.max(8, at.x - 14 - width);
        const top = at.y - height - 12 > 8 ? at.y - height - 12 : at.y + 16;
        tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
      };
      place();
    };
    const point = (event) => {
      items ??= itemsOf(svg);
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const hit = find(items, at.x, at.y);
      if (hit) show(hit); else hide();
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
    const step = (by) => {
      items ??= itemsOf(svg);
      if (!items.length) return;
      chosen = (chosen + by + items.length) % items.length;
      const item = items[chosen], [x, y] = item.at.at(-1) ?? [0, 0];
      show({ item, x, y });
    };
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) { chosen = -1; step(1); } });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (by) { step(by); event.preventDefault(); } else if (event.key === "Escape") hide();
    });
  };
  document.querySelectorAll("svg[data-axes]").forEach(setUp);
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest("svg[data-axes]")) clear(); });
  addEventListener("scroll", () => place(), { passive: true, capture: true });

  // A link into a folded section unfolds it; paper has no folds.
  const unfold = (el) => { for (; el; el = el.parentElement) if (el.tagName === "DETAILS") el.open = true; };
  const follow = () => unfold(location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1))));
  addEventListener("hashchange", follow);
  follow();
  addEventListener("beforeprint", () => {
    clear();
    document.querySelectorAll("details.section").forEach((el) => { el.open = true; });
  });
})();
"""
