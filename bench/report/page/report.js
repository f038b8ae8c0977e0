"use strict";
(() => {
  const tip = document.getElementById("tip");
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 4)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 8 : y + 18) + "px";
  };
  for (const shape of document.querySelectorAll("svg.chart .dot, svg.chart .bar")) {
    const name = shape.querySelector("title");
    if (!name) continue;
    const text = name.textContent;
    shape.addEventListener("pointermove", event => show(text, event.clientX, event.clientY));
    shape.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  const SECONDS_PER_DAY = 86400;
  const panel = document.getElementById("what-if");
  if (!panel) return;
  const data = JSON.parse(panel.querySelector(".panel-data").textContent);
  const form = panel.querySelector(".controls"), answers = panel.querySelector(".answers");
  const number = value => value >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(3)).toString();
  const scaled = value => {
    for (const [factor, word] of [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]]) {
      if (value >= factor) return number(value / factor) + " " + word;
    }
    return number(value);
  };
  const field = (key, label, input) => {
    const row = document.createElement("label");
    const output = document.createElement("output");
    input.name = key;
    row.append(label, output, input);
    form.append(row);
    return { input, output };
  };
  const range = (key, label, values, chosen) => {
    const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: values.length - 1, step: 1, value: chosen });
    return field(key, label, input);
  };
  const select = document.createElement("select");
  data.clusters.forEach((cluster, i) => select.append(new Option(cluster.name, i)));
  const chosen = field("cluster", "Cluster", select);
  const devices = range("n_devices", "Devices", [0], 0);
  const links = range("link_factor", "Rate of the links between nodes", [0], 0);
  const free = data.free.map(one => ({ ...one, ...range(one.key, one.label, one.values, one.chosen) }));
  const rebuild = () => {
    const cluster = data.clusters[select.value];
    for (const [control, values, at] of [[devices, cluster.n_devices, cluster.n_devices.length - 1], [links, cluster.link_factors, cluster.link_factors.indexOf(1)]]) {
      control.input.max = values.length - 1;
      control.input.value = at;
    }
    const price = free.find(one => one.key === "price");
    if (cluster.price) price.input.value = price.values.reduce((best, v, i) => Math.abs(v - cluster.price) < Math.abs(price.values[best] - cluster.price) ? i : best, 0);
    answer();
  };
  const value = key => { const one = free.find(f => f.key === key); return one.values[one.input.value]; };
  const answer = () => {
    const cluster = data.clusters[select.value], i = Number(devices.input.value), j = Number(links.input.value);
    devices.output.textContent = number(cluster.n_devices[i]);
    links.output.textContent = number(cluster.link_factors[j]) + " x";
    for (const one of free) one.output.textContent = number(one.values[one.input.value]) + " " + one.unit;
    const speed = cluster.tokens_per_s[i][j];
    const kept = effective(cluster.n_devices[i], cluster.devices_per_node);
    const days = q => data.n_tokens / speed[q] / kept / SECONDS_PER_DAY;
    const cost = q => days(q) * 24 * cluster.n_devices[i] * value("price");
    const rows = [
      ["tokens/s", "tokens_per_s", scaled(speed[1]), scaled(speed[0]) + " to " + scaled(speed[2])],
      ["time that trains", "effective", (100 * kept).toFixed(1) + " %", "checkpoints and restarts take the rest"],
      ["days for " + scaled(data.n_tokens) + " tokens", "days", number(days(1)), number(days(2)) + " to " + number(days(0))],
      ["rented, USD", "cost", scaled(cost(1)), scaled(cost(2)) + " to " + scaled(cost(0))],
    ];
    const list = document.createElement("dl");
    for (const [label, key, middle, band] of rows) {
      const dt = document.createElement("dt"), dd = document.createElement("dd"), span = document.createElement("span");
      dt.textContent = label;
      dd.dataset.key = key;
      dd.textContent = middle + " ";
      span.className = "band-text";
      span.textContent = "(" + band + ")";
      dd.append(span);
      list.append(dt, dd);
    }
    answers.replaceChildren(list);
    answers.dataset.tokensPerS = speed[1];
    answers.dataset.effective = kept;
  };
  // Time between failures of the job, and the loss of checkpoints at Daly's interval and of restarts; 0 where nothing gets done.
  const effective = (n, perNode) => {
    const mtbf = value("mtbf_node_days") * SECONDS_PER_DAY / Math.ceil(n / perNode);
    const write = value("checkpoint_s"), restart = value("restart_s");
    const interval = Math.sqrt(2 * write * mtbf);
    const useful = interval / (mtbf * Math.exp(restart / mtbf) * Math.expm1((interval + write) / mtbf));
    return Math.max(0, Math.min(1, useful));
  };
  form.addEventListener("input", event => event.target === select ? rebuild() : answer());
  form.addEventListener("submit", event => event.preventDefault());
  rebuild();
})();

// Paper has everything open.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(folded => { folded.open = true; }));
