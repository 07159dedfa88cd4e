// Looks at the pages in the frames of the harness and writes what is wrong with them, a line each.
"use strict";

const faults = [];

function describe(element) {
  const name = element.getAttribute("class") || element.tagName;
  return `${name} "${(element.textContent || "").trim().slice(0, 40)}"`;
}

function overlap(one, other) {
  const wide = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const high = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  return wide > 1 && high > 1;
}

// A line has no area: it touches a text if it passes through its middle part.
function thick(box) {
  return { x: box.x - 0.75, y: box.y - 0.75, width: box.width + 1.5, height: box.height + 1.5 };
}

// Letters are lower than their line: a box without what is above capitals and below the base line.
function letters(text) {
  const box = text.getBBox();
  return { x: box.x, y: box.y + 2, width: box.width, height: box.height - 5 };
}

function inside(box, view, slack) {
  return box.x >= -slack && box.y >= -slack
    && box.x + box.width <= view.width + slack && box.y + box.height <= view.height + slack;
}

function lookAtPlot(say, svg) {
  const view = svg.viewBox.baseVal;
  const scale = svg.getBoundingClientRect().width / view.width;
  const height = 12 * scale;
  if (height < 9.5 || height > 18) {
    say(`letters of ${height.toFixed(1)} px`);
  }
  const marks = [...svg.querySelectorAll(".line, .dot, .bar")];
  const seen = marks.filter((mark) => {
    const box = mark.getBBox();
    return box.width > 0 || box.height > 0;
  });
  if (seen.length === 0) {
    say("no visible marks");
  }
  for (const mark of [...seen, ...svg.querySelectorAll(".whisker, .range, .axis, .grid")]) {
    if (!inside(mark.getBBox(), view, 1)) {
      say(`outside of the view: ${describe(mark)}`);
    }
  }
  const texts = [...svg.querySelectorAll("text")];
  const boxes = texts.map((text) => letters(text));
  const bars = [...svg.querySelectorAll(".bar, .whisker, .axis, .mark")];
  texts.forEach((text, index) => {
    if (!inside(text.getBBox(), view, 2)) {
      say(`text outside of the view: ${describe(text)}`);
    }
    for (let other = index + 1; other < texts.length; other++) {
      if (overlap(boxes[index], boxes[other])) {
        say(`texts overlap: ${describe(text)} and ${describe(texts[other])}`);
      }
    }
    for (const bar of bars) {
      if (overlap(boxes[index], thick(bar.getBBox()))) {
        say(`text over ${describe(bar)}: ${describe(text)}`);
      }
    }
  });
  if (!svg.querySelector("title").textContent || !svg.querySelector("desc").textContent) {
    say("no text alternative");
  }
}

function luminance(colour) {
  const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.03928 ? share / 12.92 : Math.pow((share + 0.055) / 1.055, 2.4);
  });
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function lookAtColours(say, view, figure) {
  const style = (element) => view.getComputedStyle(element);
  const ground = style(figure).backgroundColor;
  for (const text of figure.querySelectorAll("h3, p, summary, .legend li, svg.plot text")) {
    const colour = text.tagName === "text" ? style(text).fill : style(text).color;
    if (contrast(colour, ground) < 4.5) {
      say(`too little contrast of text: ${describe(text)} ${colour} on ${ground}`);
    }
  }
  for (const mark of figure.querySelectorAll(".plot .line, .plot .dot, .plot .bar")) {
    const colour = mark.classList.contains("line") ? style(mark).stroke : style(mark).fill;
    if (contrast(colour, ground) < 3) {
      say(`too little contrast of a mark: ${describe(mark)} ${colour} on ${ground}`);
      break;
    }
  }
}

function lookAtWidth(say, document, view) {
  if (document.documentElement.scrollWidth > view.innerWidth) {
    say(`scrolls sideways: ${document.documentElement.scrollWidth} px`);
  }
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (box.width > 0 && box.right > view.innerWidth + 1 && !element.closest(".scroll table")) {
      say(`past the right edge: ${describe(element)}`);
    }
  }
}

function lookAt(frame) {
  const document = frame.contentDocument;
  const view = frame.contentWindow;
  const say = (text) => faults.push(`${view.innerWidth} px: ${text}`);
  lookAtWidth(say, document, view);
  for (const figure of document.querySelectorAll("figure")) {
    const of = (text) => say(`${figure.querySelector("h3").textContent}: ${text}`);
    const shown = [...figure.querySelectorAll("svg.plot")]
      .filter((svg) => view.getComputedStyle(svg).display !== "none");
    if (shown.length !== 1) {
      of(`${shown.length} plots are shown`);
    }
    shown.forEach((svg) => lookAtPlot(of, svg));
    lookAtColours(of, view, figure);
    if (figure.querySelectorAll("details tbody tr").length === 0) {
      of("no table");
    }
  }
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  lookAtWidth((text) => say(`tables open: ${text}`), document, view);
}

window.addEventListener("load", () => {
  const frames = [...document.querySelectorAll("iframe")];
  frames.forEach(lookAt);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const head = `looked at ${frames.length} frames, ${dark ? "dark" : "light"}`;
  document.getElementById("faults").textContent = [head, ...faults].join("\n") + "\n";
});
