"use strict";
// Sorting, copying and tips. Without it the page still shows every figure and table.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (name) node.className = name;
    return node;
  };
  const tip = document.getElementById("tip");
  const clips = new Set(JSON.parse(document.getElementById("clips").textContent));
  document.documentElement.classList.add("scripted");

  // A tip beside the pointer: lines of text, and the clip of a CSS class above them.
  const show = (event, lines, clip) => {
    tip.replaceChildren();
    if (clip && clips.has(clip)) tip.append(make("span", "", "clip " + clip));
    tip.append(make("div", lines.filter((line) => line !== "").join("\n")));
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > innerWidth ? event.clientX - 14 - box.width : event.clientX + 14;
    const top = event.clientY + 14 + box.height > innerHeight ? event.clientY - 14 - box.height : event.clientY + 14;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
    tip.style.visibility = "visible";
  };
  const hide = () => { tip.style.visibility = "hidden"; };
  addEventListener("scroll", hide, { passive: true });

  // Tables: a click on a heading sorts, another one the other way round.
  const value = (cell) => {
    const text = "v" in cell.dataset ? cell.dataset.v : cell.textContent;
    const number = Number(text.replace(/,/g, ""));
    return text !== "" && !Number.isNaN(number) ? number : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b);
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row) => [value(row.cells[column]), row]);
        keyed.sort((a, b) => (falling ? compare(b[0], a[0]) : compare(a[0], b[0])));
        body.append(...keyed.map((pair) => pair[1]));
      });
    });
  }

  // Copying: tables as tab-separated text, which spreadsheets take; commands as they are.
  const copied = async (text, button) => {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  };
  const copier = (after, label, text) => {
    const button = make("button", label, "copy");
    button.type = "button";
    button.addEventListener("click", (event) => {
      event.preventDefault();
      copied(text(), button);
    });
    after.append(button);
  };
  for (const table of all("table.sortable")) {
    const lines = () => all("tr", table).map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t")).join("\n");
    const summary = table.closest("details")?.querySelector("summary");
    copier(summary || table.parentElement.parentElement.insertBefore(make("p", ""), table.parentElement), "Copy table", lines);
  }
  for (const command of all(".command")) {
    const text = command.textContent;
    copier(command, "Copy", () => text);
  }

  // Line charts: the values at the x nearest to the pointer.
  for (const chart of all("svg.chart")) {
    const data = JSON.parse(chart.parentElement.querySelector(".chart-data").textContent);
    const cross = chart.querySelector(".cross");
    const move = (event) => {
      const box = chart.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      let near = 0;
      data.x.forEach((place, index) => { if (Math.abs(place - x) < Math.abs(data.x[near] - x)) near = index; });
      cross.setAttribute("x1", data.x[near]);
      cross.setAttribute("x2", data.x[near]);
      cross.style.visibility = "visible";
      show(event, [`${data.x_label} ${data.names[near]}`.trim(), ...data.lines.map((line) => `${line.label}: ${line.values[near]}`)]);
    };
    chart.addEventListener("pointermove", move);
    chart.addEventListener("pointerdown", move);
    chart.addEventListener("pointerleave", () => { cross.style.visibility = "hidden"; hide(); });
  }

  // Confusion matrices: counts in the tip, of empty cells too; rows and columns in the chosen order.
  for (const matrix of all("svg.matrix")) {
    const figure = matrix.closest("figure");
    const data = JSON.parse(figure.querySelector(".matrix-data").textContent);
    const counts = new Map(all("rect[data-n]", matrix).map(({ dataset }) => [`${dataset.t},${dataset.g}`, Number(dataset.n)]));
    const order = figure.querySelector(".order");
    const tell = (event) => {
      const box = matrix.getBoundingClientRect();
      const scale = matrix.viewBox.baseVal.width / box.width;
      const column = Math.floor(((event.clientX - box.left) * scale - data.left) / data.cell);
      const row = Math.floor(((event.clientY - box.top) * scale - data.top) / data.cell);
      const classes = data.orders[order.value];
      if (Math.min(row, column) < 0 || Math.max(row, column) >= classes.length) return hide();
      const [t, g] = [classes[row], classes[column]];
      const n = counts.get(`${t},${g}`) ?? 0;
      const share = data.totals[t] ? ` (${((100 * n) / data.totals[t]).toFixed(1)} %)` : "";
      show(event, [data.names[t], t === g ? "right" : `taken for ${data.names[g]}`, `${n} of ${data.totals[t]}${share}`]);
    };
    matrix.addEventListener("pointermove", tell);
    matrix.addEventListener("pointerdown", tell);
    matrix.addEventListener("pointerleave", hide);
    order.addEventListener("change", () => {
      const place = [];
      data.orders[order.value].forEach((label, position) => { place[label] = position; });
      const middle = (label) => (place[label] + 0.5) * data.cell + 3;
      for (const cell of all("rect[data-n]", matrix)) {
        cell.setAttribute("x", data.left + place[cell.dataset.g] * data.cell);
        cell.setAttribute("y", data.top + place[cell.dataset.t] * data.cell);
      }
      for (const label of all("text[data-row]", matrix)) label.setAttribute("y", data.top + middle(label.dataset.row));
      for (const label of all("text[data-column]", matrix)) {
        label.setAttribute("transform", `translate(${data.left + middle(label.dataset.column)} ${data.top + data.side + 5}) rotate(-90)`);
      }
    });
  }

  // Maps: a video's clip or name in the tip, another layout, one class alone.
  for (const map of all("svg.map")) {
    const figure = map.closest("figure");
    const data = JSON.parse(figure.querySelector(".map-data").textContent);
    const circles = all("circle", map);
    const named = (index) => data.class_names[data.classes[index]] ?? "";
    const points = data.ids.length, played = data.clips.filter((clip) => clips.has(clip)).length;
    const some = played < points ? `, and for its clip where there is one (${played.toLocaleString("en")} of ${points.toLocaleString("en")} points)` : " and its clip";
    figure.querySelector(".hint").textContent = `Hover or tap a point for its name${played ? some : ""}.`;
    const tell = (event) => {
      const index = event.target.dataset.i;
      if (index === undefined) return hide();
      show(event, [named(index), data.ids[index], data.nearest[index] && `nearest: ${data.nearest[index]}`], data.clips[index]);
    };
    map.addEventListener("pointerover", tell);
    map.addEventListener("pointerdown", tell);
    map.addEventListener("pointerleave", hide);
    const layout = figure.querySelector(".layout");
    layout.addEventListener("change", () => {
      const places = data.layouts[layout.value];
      circles.forEach((circle, index) => {
        circle.setAttribute("cx", places[2 * index]);
        circle.setAttribute("cy", places[2 * index + 1]);
      });
    });
    const pick = figure.querySelector(".pick");
    pick.addEventListener("change", () => {
      const chosen = pick.selectedIndex - 1;
      circles.forEach((circle, index) => circle.classList.toggle("faint", chosen !== -1 && data.classes[index] !== chosen));
    });
  }

  // Clips: one switch stops them all; a hovered one plays.
  const first = document.querySelector(".row");
  if (first) {
    const button = make("button", "Pause clips", "copy");
    button.type = "button";
    button.addEventListener("click", () => {
      button.textContent = document.documentElement.classList.toggle("paused") ? "Play clips" : "Pause clips";
    });
    first.closest("section").querySelector("h2").append(button);
  }
})();
