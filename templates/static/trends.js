// Draws the figures again each second. The server sends them by WebSocket. Where there is none, or
// none any more, the page asks for them.
const figures = document.getElementById("figures");
const find = (selector) => figures.querySelector(selector);

const say = (words) => { document.getElementById("away").textContent = words; };

const draw = (now) => {
  say("");
  for (const name of ["requests", "opened", "open", "refused", "up", "process"]) {
    find(`#${name} dd`).textContent = now[name];
  }
  const highest = Math.max(...now.seconds);
  figures.querySelectorAll("figure rect").forEach((bar, at) => {
    const height = 120 * now.seconds[at] / Math.max(1, highest);
    bar.setAttribute("y", 120 - height);
    bar.setAttribute("height", height);
    bar.firstElementChild.textContent = now.seconds[at];
  });
  find(".highest").textContent = highest;
  figures.querySelectorAll("table").forEach((table, at) => {
    const rows = [now.statuses, now.times][at];
    const most = Math.max(1, ...rows.map((row) => row.count));
    rows.forEach(({ count }, at) => {
      table.rows[at].cells[1].textContent = count;
      table.rows[at].querySelector("rect").setAttribute("width", 100 * count / most);
    });
  });
  find("#shares").hidden = !now.median;
  find("#median").textContent = now.median;
  find("#slowest").textContent = now.slowest;
};

const ask = async () => {
  try {
    const headers = { Accept: "application/json" };
    draw(await (await fetch("/trends/", { cache: "no-store", headers })).json());
  } catch {
    say("The server does not answer. These figures are old; it is asked again each second.");
  }
  setTimeout(ask, 1000);
};

if ("live" in figures.dataset) {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/trends/");
  socket.onmessage = ({ data }) => draw(JSON.parse(data));
  socket.onclose = ask;
} else {
  setTimeout(ask, 1000);
}
