const DIGITS = "{{ digits }}";
const read = id => document.getElementById(id).textContent;
const unpacked = async id => {
  const text = read(id), bytes = new Uint8Array(Math.ceil(text.length / 5) * 4);
  for (let at = 0; at < text.length; at += 5) {
    let four = 0;
    for (let digit = 0; digit < 5; digit++) four = four * 85 + (at + digit < text.length ? DIGITS.indexOf(text[at + digit]) : 84);
    for (let byte = 3; byte >= 0; byte--, four = Math.floor(four / 256)) bytes[at / 5 * 4 + byte] = four % 256;
  }
  const whole = Math.floor(text.length / 5) * 4 + Math.max(0, text.length % 5 - 1);
  return new Response(new Blob([bytes.subarray(0, whole)]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
const coloured = value => {
  const style = getComputedStyle(document.documentElement);
  const walk = item => typeof item === "string" && item.startsWith("var(")
    ? style.getPropertyValue(item.slice(4, -1)).trim()
    : Array.isArray(item) ? item.map(walk)
    : item && typeof item === "object" ? Object.fromEntries(Object.entries(item).map(([key, each]) => [key, walk(each)]))
    : item;
  return walk(value);
};
const axis = {gridcolor: "var(--grid)", zerolinecolor: "var(--muted)", linecolor: "var(--line)", automargin: true};
const themed = layout => {
  const found = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    margin: {l: 48, r: 12, t: 12, b: 44}, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", itemsizing: "constant",
      ...(innerWidth < 640 ? {entrywidth: 84, font: {size: 10}} : {entrywidth: 105})},
    hoverlabel: {bgcolor: "var(--card)", bordercolor: "var(--line)", font: {color: "var(--text)"}},
    ...layout,
    font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--text)"},
  };
  for (const key of Object.keys(found)) if (/^[xy]axis/.test(key)) found[key] = {...axis, ...found[key]};
  return coloured(found);
};
const draw = () => {
  for (const [id, chart] of Object.entries(charts)) {
    Plotly.react(id, coloured(chart.data), themed(chart.layout), {responsive: true, displayModeBar: false});
  }
};
let charts = {};
Promise.all([unpacked("charts"), unpacked("plotly-js")]).then(([data, source]) => {
  charts = JSON.parse(data);
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.dataset.drawn = "yes";
}).catch(() => {
  for (const place of document.querySelectorAll(".chart")) {
    place.textContent = "This browser cannot show the chart; one from 2023 or later can.";
  }
});
