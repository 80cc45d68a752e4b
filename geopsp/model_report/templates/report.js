"use strict";
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.of);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

const panel = document.getElementById("map-panel");
if (panel) {
  const get = (name) => document.getElementById(`map-${name}`);
  const view = get("view"), layers = get("layers"), picture = get("classes"), swipe = get("swipe");
  const divider = get("divider"), opacity = get("opacity"), position = get("position");
  const boxes = [...get("legend").querySelectorAll("input")];
  const { transform, degrees } = JSON.parse(panel.dataset.geometry);
  const width = Number(picture.getAttribute("width")), height = Number(picture.getAttribute("height"));
  const state = { scale: 1, x: 0, y: 0 };
  const most = 40;

  // the map as a canvas, in which classes can be hidden: each has a colour of its own in the picture
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", picture.alt);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let pixels = null, classes = null;
  const colors = new Map(boxes.map((box, number) => [parseInt(box.dataset.color.slice(1), 16), number]));

  function readPicture() {
    context.drawImage(picture, 0, 0, width, height);
    pixels = context.getImageData(0, 0, width, height);
    classes = new Uint8Array(width * height).fill(255);
    for (let at = 0; at < classes.length; at += 1) {
      const [r, g, b, a] = [pixels.data[4 * at], pixels.data[4 * at + 1], pixels.data[4 * at + 2], pixels.data[4 * at + 3]];
      const number = a ? colors.get((r << 16) | (g << 8) | b) : undefined;
      if (number !== undefined) classes[at] = number;
    }
    picture.replaceWith(canvas);
    canvas.id = "map-classes";
    draw();
  }

  function draw() {
    const shown = boxes.map((box) => (box.checked ? 255 : 0));
    for (let at = 0; at < classes.length; at += 1) {
      pixels.data[4 * at + 3] = classes[at] === 255 ? 0 : shown[classes[at]];
    }
    context.putImageData(pixels, 0, 0);
    get("none").textContent = boxes.some((box) => box.checked) ? "Hide all" : "Show all";
  }

  function place() {
    const size = view.getBoundingClientRect();
    const low = (length) => Math.min(0, length * (1 - state.scale));
    state.x = Math.min(0, Math.max(low(size.width), state.x));
    state.y = Math.min(0, Math.max(low(size.height), state.y));
    layers.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    layers.classList.toggle("near", state.scale * fit() > 1.5);
    if (swipe) {
      const at = (swipe.value / 100) * size.width;
      divider.style.left = `${at}px`;
      const cut = Math.min(size.width, Math.max(0, (at - state.x) / state.scale));
      get("classes").style.clipPath = `inset(0 0 0 ${cut}px)`;
      swipe.setAttribute("aria-valuetext", `map on the right of ${swipe.value} %`);
    }
  }

  function zoom(factor, x, y) {
    const scale = Math.min(most, Math.max(1, state.scale * factor));
    state.x = x - (x - state.x) * (scale / state.scale);
    state.y = y - (y - state.y) * (scale / state.scale);
    state.scale = scale;
    place();
  }

  const centre = () => [view.clientWidth / 2, view.clientHeight / 2];
  const fit = () => Math.min(view.clientWidth / width, view.clientHeight / height);

  function tell(x, y) {
    const col = (x - state.x) / state.scale / fit(), row = (y - state.y) / state.scale / fit();
    if (col < 0 || row < 0 || col >= width || row >= height) {
      position.textContent = "Outside of the map.";
      return;
    }
    const [a, b, c, d, e, f] = transform;
    const parts = [];
    const crs = panel.dataset.crs;
    const digits = Math.max(0, Math.min(7, Math.ceil(-Math.log10(Math.hypot(a, d))) + 1));
    const mapX = (a * col + b * row + c).toFixed(digits), mapY = (d * col + e * row + f).toFixed(digits);
    parts.push(crs ? `${mapX}, ${mapY} (${crs})` : `column ${mapX}, row ${mapY}`);
    if (degrees.length) {
      const [longitude, latitude] = interpolate((col / width) * (degrees.length - 1), (row / height) * (degrees.length - 1));
      const north = `${Math.abs(latitude).toFixed(5)}° ${latitude < 0 ? "S" : "N"}`;
      parts.push(`${north}, ${Math.abs(longitude).toFixed(5)}° ${longitude < 0 ? "W" : "E"}`);
    }
    const number = classes ? classes[Math.floor(row) * width + Math.floor(col)] : 255;
    parts.push(number === 255 ? "no class" : boxes[number].dataset.name);
    position.textContent = parts.join(" · ");
  }

  function interpolate(x, y) {
    const steps = degrees.length - 1;
    const i = Math.min(steps - 1, Math.floor(x)), j = Math.min(steps - 1, Math.floor(y));
    const u = x - i, v = y - j;
    return [0, 1].map((k) =>
      (degrees[j][i][k] * (1 - u) + degrees[j][i + 1][k] * u) * (1 - v) + (degrees[j + 1][i][k] * (1 - u) + degrees[j + 1][i + 1][k] * u) * v);
  }

  const local = (event) => {
    const box = view.getBoundingClientRect();
    return [event.clientX - box.left - view.clientLeft, event.clientY - box.top - view.clientTop];
  };

  const pointers = new Map();
  view.addEventListener("pointerdown", (event) => {
    const onDivider = event.target === divider;
    pointers.set(event.pointerId, { at: local(event), onDivider });
    view.setPointerCapture(event.pointerId);
    view.classList.toggle("dragging", !onDivider);
  });
  view.addEventListener("pointermove", (event) => {
    const now = local(event), held = pointers.get(event.pointerId);
    tell(...now);
    if (!held) return;
    if (held.onDivider) {
      swipe.value = (100 * now[0]) / view.clientWidth;
    } else if (pointers.size === 2) {
      const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1].at;
      const before = Math.hypot(held.at[0] - other[0], held.at[1] - other[1]);
      const after = Math.hypot(now[0] - other[0], now[1] - other[1]);
      if (before > 0) zoom(after / before, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      state.x += now[0] - held.at[0];
      state.y += now[1] - held.at[1];
    }
    held.at = now;
    place();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    view.addEventListener(end, (event) => {
      pointers.delete(event.pointerId);
      view.classList.remove("dragging");
    });
  }
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(1.0015 ** -event.deltaY, ...local(event));
  }, { passive: false });
  view.addEventListener("dblclick", (event) => zoom(2, ...local(event)));

  const step = 60;
  const keys = {
    ArrowLeft: () => { state.x += step; }, ArrowRight: () => { state.x -= step; },
    ArrowUp: () => { state.y += step; }, ArrowDown: () => { state.y -= step; },
    "+": () => zoom(1.5, ...centre()), "=": () => zoom(1.5, ...centre()), "-": () => zoom(1 / 1.5, ...centre()),
    0: () => Object.assign(state, { scale: 1, x: 0, y: 0 }),
    "[": () => { if (swipe) swipe.value = Number(swipe.value) - 5; },
    "]": () => { if (swipe) swipe.value = Number(swipe.value) + 5; },
  };
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
    place();
    tell(...centre());
  });
  get("in").addEventListener("click", () => zoom(1.5, ...centre()));
  get("out").addEventListener("click", () => zoom(1 / 1.5, ...centre()));
  get("reset").addEventListener("click", () => { keys[0](); place(); });
  get("none").addEventListener("click", () => {
    const checked = !boxes.some((box) => box.checked);
    for (const box of boxes) box.checked = checked;
    draw();
  });
  for (const box of boxes) box.addEventListener("change", draw);
  opacity.addEventListener("input", () => { get("classes").style.opacity = opacity.value / 100; });
  if (swipe) swipe.addEventListener("input", place);
  new ResizeObserver(place).observe(view);
  divider.hidden = !swipe;
  get("controls").hidden = false;
  const start = () => { readPicture(); place(); };
  if (picture.complete && picture.naturalWidth) start(); else picture.addEventListener("load", start);
}
