"use strict";
(() => {
  const dataOf = (element) => JSON.parse(element.querySelector("script").textContent);
  const nearest = (count, distance) => {
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      const d = distance(i);
      if (d < least) { least = d; best = i; }
    }
    return best;
  };

  // The same rule as `number` in charts.py.
  function written(value) {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-3) return value.toExponential(1);
    const digits = size >= 1000 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  // One crosshair over all charts: they share the axis of steps.
  const charts = [...document.querySelectorAll(".chart")].map((figure) => {
    const outputs = [...figure.querySelectorAll("output")];
    return { ...dataOf(figure), svg: figure.querySelector("svg"), cross: figure.querySelector(".cross"),
      outputs, latest: outputs.map((output) => output.textContent) };
  });
  function point(step) {
    for (const { left, right, first, last, series, cross, outputs } of charts) {
      const x = left + (step - first) / ((last - first) || 1) * (right - left);
      cross.removeAttribute("hidden");
      cross.firstElementChild.setAttribute("transform", `translate(${x})`);
      cross.lastElementChild.setAttribute("x", x);
      cross.lastElementChild.textContent = Math.round(step).toLocaleString("en-US");
      series.forEach(([steps, values], i) => {
        outputs[i].textContent = written(values[nearest(steps.length, (k) => Math.abs(steps[k] - step))]);
      });
    }
  }
  function release() {
    for (const { cross, outputs, latest } of charts) {
      cross.setAttribute("hidden", "");
      outputs.forEach((output, i) => { output.textContent = latest[i]; });
    }
  }
  for (const chart of charts) {
    const { svg, left, right, first, last } = chart;
    const within = (step) => Math.min(last, Math.max(first, step));
    let at = last;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      point(at = within(first + (x - left) / (right - left) * (last - first)));
    });
    svg.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      point(at = within(at + way * (last - first) / 60));
    });
    svg.addEventListener("pointerleave", release);
    svg.addEventListener("blur", release);
  }

  for (const map of document.querySelectorAll(".map")) {
    const { x, y, group, names, label, labels, sheet } = dataOf(map);
    const plot = map.querySelector(".plot"), svg = plot.querySelector("svg");
    const card = plot.querySelector(".card"), ring = plot.querySelector(".ring");
    const { width, height } = svg.viewBox.baseVal;
    const hidden = new Set(), pictures = [];
    let current = -1;

    function picture(i) {
      const span = document.createElement("span"), [columns, rows] = sheet;
      span.className = "picture thumb";
      span.style.backgroundPosition =
        `${i % columns / Math.max(columns - 1, 1) * 100}% ${Math.floor(i / columns) / Math.max(rows - 1, 1) * 100}%`;
      return span;
    }
    function show(i) {
      current = i;
      ring.toggleAttribute("hidden", i < 0);
      card.hidden = i < 0;
      if (i < 0) return;
      ring.setAttribute("cx", x[i]);
      ring.setAttribute("cy", y[i]);
      const name = document.createElement("b"), kind = document.createElement("span");
      name.textContent = names[i];
      kind.textContent = labels[label[i]];
      card.replaceChildren(...(sheet ? [picture(i)] : []), name, kind);
      const right = x[i] > width / 2, low = y[i] > height / 2;
      card.style.left = right ? "" : `calc(${x[i] / width * 100}% + 14px)`;
      card.style.right = right ? `calc(${100 - x[i] / width * 100}% + 14px)` : "";
      card.style.top = low ? "" : `${y[i] / height * 100}%`;
      card.style.bottom = low ? `${100 - y[i] / height * 100}%` : "";
    }
    function follow(event) {
      const box = svg.getBoundingClientRect(), scale = width / box.width;
      const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
      const distance = (i) => (hidden.has(group[i]) ? Infinity : Math.hypot(x[i] - px, y[i] - py));
      const i = nearest(x.length, distance);
      show(i >= 0 && distance(i) < 16 * Math.max(scale, 1) ? i : -1);
    }
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", () => show(-1));
    svg.addEventListener("blur", () => show(-1));
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return show(-1);
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const from = current < 0 ? [width / 2, height / 2] : [x[current], y[current]];
      const next = nearest(x.length, (i) => {
        if (hidden.has(group[i]) || i === current) return Infinity;
        const dx = x[i] - from[0], dy = y[i] - from[1];
        if (current < 0) return Math.hypot(dx, dy);
        const along = dx * way[0] + dy * way[1], across = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        return along > 0 ? along + 2 * across : Infinity;
      });
      if (next >= 0) show(next);
    });

    const buttons = [...map.querySelectorAll(".legend [data-group]")], all = map.querySelector(".all");
    function toggle(button, on) {
      const number = Number(button.dataset.group);
      button.setAttribute("aria-pressed", on);
      on ? hidden.delete(number) : hidden.add(number);
      plot.querySelector(`g[data-group="${number}"]`).toggleAttribute("hidden", !on);
      pictures.forEach((span, i) => { if (group[i] === number) span.hidden = !on; });
      if (all) all.textContent = hidden.size ? "Show all" : "Hide all";
    }
    for (const button of buttons) {
      button.addEventListener("click", () => toggle(button, button.getAttribute("aria-pressed") === "false"));
    }
    all?.addEventListener("click", () => {
      const on = hidden.size > 0;
      buttons.forEach((button) => toggle(button, on));
    });
    map.querySelector(".switch[aria-pressed]")?.addEventListener("click", ({ currentTarget }) => {
      const on = plot.classList.toggle("seen");
      currentTarget.setAttribute("aria-pressed", on);
      if (on && !pictures.length) {
        x.forEach((_, i) => {
          const span = picture(i);
          span.style.left = `${x[i] / width * 100}%`;
          span.style.top = `${y[i] / height * 100}%`;
          span.hidden = hidden.has(group[i]);
          pictures.push(span);
        });
        svg.after(...pictures);
      } else if (!on) {
        pictures.splice(0).forEach((span) => span.remove());
      }
    });
  }

  // One player for all sounds: pressing a button stops what plays, and plays its own.
  const sounds = document.querySelector(".sounds");
  if (sounds) {
    const files = dataOf(sounds), player = new Audio();
    let playing = null;
    const stop = () => {
      player.pause();
      playing?.setAttribute("aria-pressed", "false");
      playing = null;
    };
    player.addEventListener("ended", stop);
    document.addEventListener("click", ({ target }) => {
      const button = target.closest("button.play"), again = button === playing;
      if (!button) return;
      stop();
      if (again) return;
      playing = button;
      button.setAttribute("aria-pressed", "true");
      player.src = `data:audio/ogg;base64,${files[button.dataset.sound]}`;
      player.play().catch(stop);
    });
  }
})();
