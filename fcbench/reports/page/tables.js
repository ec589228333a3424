// Tables: sortable by any column, copied as Markdown, LaTeX or CSV. A table is {title, header, rows, notes, left}.

const at = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // texts become text nodes, never markup
  return made;
}

function numberOf(cell) {
  const found = /^[-+]?[\d.]+(e[-+]?\d+)?/i.exec(String(cell));
  return found ? parseFloat(found[0]) : NaN;
}

// Rows in order of a column; cells without a number come last, words in alphabetical order.
function sorted(rows, column, down) {
  const numeric = rows.some((row) => !Number.isNaN(numberOf(row[column])));
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    if (!numeric) return sign * String(a[column]).localeCompare(String(b[column]));
    const [x, y] = [numberOf(a[column]), numberOf(b[column])];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  });
}

const plainRows = (table) => [table.header, ...table.rows];

function asMarkdown(table) {
  const line = (cells) => `| ${cells.map((c) => String(c).replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = table.header.map((_, i) => (i < table.left ? "---" : "---:"));
  const notes = table.notes.map((note, i) => `[${i + 1}] ${note}  `);
  return [`**${table.title}**`, "", line(table.header), line(rule), ...table.rows.map(line), "", ...notes].join("\n");
}

function asLatex(table) {
  const special = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "…": "\\dots{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "[": "{[}" };
  const tex = (text) => String(text)
    .replace(/[&%$#_{}\\~^…<>[]/g, (c) => special[c] ?? "\\" + c)
    .replace(/(^|[ (])-(?=\d)/g, "$1$$-$$");
  const line = (cells) => `${cells.map(tex).join(" & ")} \\\\`;
  const across = (text) => `\\multicolumn{${table.header.length}}{l}{${text}} \\\\`;
  return [
    `\\begin{tabular}{${table.header.map((_, i) => (i < table.left ? "l" : "r")).join("")}}`,
    "\\toprule", across(`\\textbf{${tex(table.title)}}`), "\\midrule", line(table.header), "\\midrule",
    ...table.rows.map(line),
    ...table.notes.map((note, i) => across(`\\footnotesize{${tex(`[${i + 1}] ${note}`)}}`)),
    "\\bottomrule", "\\end{tabular}",
  ].join("\n");
}

function asCsv(table) {
  const quoted = (cell) => (/[",\n\r]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell));
  return plainRows(table).map((cells) => cells.map(quoted).join(",")).join("\n");
}

const FORMS = { Markdown: asMarkdown, LaTeX: asLatex, CSV: asCsv };

async function copy(text, name) {
  const status = document.getElementById("status");
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  status.textContent = `copied as ${name}`;
}

// The table as an element. Copies keep the displayed order.
function tableElement(table) {
  const shown = { ...table };
  const body = element("tbody");
  const fill = () => body.replaceChildren(...shown.rows.map((row) => element("tr", {}, ...row.map((cell, i) =>
    i === 0 ? element("th", { scope: "row", class: "words" }, cell)
      : element("td", i < table.left ? { class: "words" } : {}, cell)))));
  const heads = table.header.map((name, i) => {
    const button = element("button", { type: "button" }, name || "–");
    const head = element("th", { scope: "col", "aria-sort": "none", ...(i < table.left ? { class: "words" } : {}) }, button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((h) => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      shown.rows = sorted(table.rows, i, down);
      fill();
    });
    return head;
  });
  fill();
  const copies = Object.entries(FORMS).map(([name, write]) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => copy(write(shown), name));
    return button;
  });
  const grid = element("table", {}, element("caption", {}, element("span", {}, table.title)), element("thead", {}, element("tr", {}, ...heads)), body);
  const notes = table.notes.map((note, i) => element("p", { class: "notes" }, `[${i + 1}] ${note}`));
  return element("div", {}, element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": table.title }, grid),
    ...notes, element("p", { class: "copies" }, "Copy as ", ...copies.flatMap((c) => [c, " "])));
}
