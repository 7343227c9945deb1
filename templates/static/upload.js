// Shows how far an upload is. Without this script the form works as any form does.
const form = document.getElementById("upload");
const bar = form.querySelector("progress");
const status = document.getElementById("status");
const buttons = form.querySelectorAll("button");
const byWebSocket = document.getElementById("by-websocket");

const say = (words) => { status.textContent = words; };

const begin = () => {
  bar.value = 0;
  bar.parentElement.hidden = false;
  for (const button of buttons) button.disabled = true;
  say("");
};

const end = (words) => {
  for (const button of buttons) button.disabled = false;
  say(words);
};

const reached = (count, total) => {
  bar.value = total ? 100 * count / total : 100;
  say(Math.floor(bar.value) + " %");
};

// Takes what changes out of a page that the server has made.
const take = (text) => {
  const answer = new DOMParser().parseFromString(text, "text/html").getElementById("answer");
  if (answer) document.getElementById("answer").replaceWith(answer);
  return answer;
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const request = new XMLHttpRequest();
  request.upload.addEventListener("progress", (step) => {
    if (step.lengthComputable) reached(step.loaded, step.total);
  });
  request.addEventListener("load", () => {
    if (!take(request.responseText)) end(request.responseText.trim());
    else end(request.status === 200 ? "Done." : "There was nothing to keep.");
  });
  request.addEventListener("error", () => end("The connection broke."));
  begin();
  request.open("POST", form.action);
  request.send(new FormData(form));
});

// The other way: each file is a text, "5 hello.txt", and then its bytes in pieces. The server says
// after each piece how much it has, and at the end the SHA-1. So that neither side has to hold much,
// only a few pieces are ahead of what it has said.
const PIECE = 256 * 1024;
const AHEAD = 8 * PIECE;

const sendAll = () => {
  if (!form.reportValidity()) return;
  const files = [...document.getElementById("files").files];
  const done = [];
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/upload/");
  let file, sent;
  const next = () => {
    file = files.shift();
    sent = 0;
    if (file) socket.send(`${file.size} ${file.name}`);
    else socket.close(1000);
  };
  begin();
  socket.onopen = next;
  socket.onmessage = ({ data }) => {
    const { received, size, name, sha1 } = JSON.parse(data);
    reached(received, size);
    if (sha1) {
      done.push(`${name}: SHA\u20111 ${sha1}`);
      next();
      return;
    }
    while (sent < size && sent - received < AHEAD) {
      socket.send(file.slice(sent, sent + PIECE));
      sent += PIECE;
    }
  };
  socket.onclose = async ({ code, reason }) => {
    const words = code === 1000 ? done : [...done, reason || "The connection broke."];
    end(words.join("\n"));
    take(await (await fetch("/upload/", { cache: "no-store" })).text());
  };
};

if (byWebSocket) {
  byWebSocket.hidden = false;
  byWebSocket.addEventListener("click", sendAll);
}
