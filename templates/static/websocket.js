// Two WebSockets: one that echoes, and one over which the server reports the frames of the first.
const at = (path) => new WebSocket(location.origin.replace("http", "ws") + path);
const find = (id) => document.getElementById(id);
const SHOWN = 100;
const OPCODES = { 0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong" };

let frames, echo;

const say = (words) => { find("status").textContent = words; };

const isOpen = (open) => {
  find("open").disabled = open;
  find("close").disabled = !open;
  for (const button of document.querySelectorAll("form button")) button.disabled = !open;
  // A button that was pressed and is disabled has lost the focus: the other one takes it.
  const has = document.activeElement;
  if (has === document.body || has.disabled) find(open ? "close" : "open").focus({ preventScroll: true });
};

const connect = () => {
  find("open").disabled = true;
  say("Connecting ...");
  frames = at("/ws/frames/");
  frames.onmessage = ({ data }) => {
    const report = JSON.parse(data);
    if (report.token) open(report.token);
    else show(report);
  };
  frames.onclose = () => {
    if (echo) echo.close(1000);
    else ended("There is no connection.");
  };
};

const open = (token) => {
  const reports = frames;
  echo = at(`/ws/echo/?watch=${token}`);
  echo.onopen = () => {
    isOpen(true);
    say("Connected.");
  };
  echo.onclose = ({ code, reason }) => {
    ended(`Closed with ${code}${reason && ": " + reason}.`);
    // The last report may come a moment later.
    setTimeout(() => reports.close(1000), 500);
  };
};

const ended = (words) => {
  echo = undefined;
  frames.onclose = null;
  isOpen(false);
  say(words);
};

// What a frame is made of.

const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const spaced = (hex) => hex.replace(/..(?=.)/g, "$& ");
const bits = (byte) => byte.toString(2).padStart(8, "0");

const parts = ({ header, wire, payload, length }) => {
  const head = bytes(header);
  const [first, second] = [bits(head[0]), bits(head[1])];
  const [code, masked] = [head[0] & 15, second[0] === "1"];
  const more = header.slice(4, masked ? -8 : undefined);
  const rows = [
    ["FIN", first[0], first[0] === "1" ? "the last of its message" : "more follows"],
    ["RSV", first.slice(1, 4), "no extension"],
    ["opcode", first.slice(4), `${code}: ${OPCODES[code]}`],
    ["MASK", second[0], masked ? "masked" : "not masked"],
    ["length", second.slice(1), more ? `${head[1] & 127}: it follows` : `${length}`],
  ];
  if (more) rows.push(["long length", spaced(more), `${length}`]);
  if (masked) rows.push(["key", spaced(header.slice(-8)), ""]);
  const cut = payload.length / 2 < length ? " ..." : "";
  const start = code === 8 ? 2 : 0;
  const words = code === 2 ? "" : new TextDecoder().decode(bytes(payload).slice(start));
  const meaning = [code === 8 && payload ? parseInt(payload.slice(0, 4), 16) : "", words && `“${words}”`];
  if (masked && payload) rows.push(["payload, masked", spaced(wire) + cut, ""]);
  if (payload) rows.push(["payload", spaced(payload) + cut, meaning.join(" ").trim()]);
  return [`${OPCODES[code]}, ${length} ${length === 1 ? "byte" : "bytes"}`, rows];
};

const make = (name, text, inside = []) => {
  const element = document.createElement(name);
  element.textContent = text;
  element.append(...inside);
  return element;
};

const show = (report) => {
  const [title, rows] = parts(report);
  const list = make("dl", "", rows.map(([name, value, meaning]) => {
    const row = make("div", "", [make("dt", name), make("dd", "", [make("code", value), " " + meaning])]);
    if (name.startsWith("payload")) row.className = "payload";
    return row;
  }));
  const way = report.way === "in" ? "browser → server" : "server → browser";
  const item = make("li", "", [make("h3", "", [make("span", way), " " + title]), list]);
  item.className = report.way;
  find("frames").prepend(item);
  find("empty").hidden = true;
  if (find("frames").children.length > SHOWN) find("frames").lastChild.remove();
};

find("open").addEventListener("click", connect);
find("close").addEventListener("click", () => echo.close(1000, "enough"));
find("text").addEventListener("submit", (event) => {
  event.preventDefault();
  echo.send(find("words").value);
});
find("binary").addEventListener("submit", (event) => {
  event.preventDefault();
  echo.send(bytes(find("digits").value.replaceAll(" ", "")));
});
