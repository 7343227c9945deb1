// One WebSocket to one room. What comes is text for the page, never HTML.
const find = (id) => document.getElementById(id);
const said = find("said");
const SHOWN = 200;

let socket;

const say = (words) => { find("status").textContent = words; };

const isInside = (inside) => {
  for (const field of find("door").elements) field.disabled = inside;
  find("leave").disabled = !inside;
  for (const field of find("speak").elements) field.disabled = !inside;
};

const show = ({ name, text, notice }) => {
  const line = document.createElement("li");
  if (name) {
    const who = document.createElement("strong");
    who.textContent = name;
    line.append(who, " " + text);
  } else {
    line.className = "notice";
    line.textContent = notice;
  }
  said.append(line);
  if (said.children.length > SHOWN) said.firstChild.remove();
  said.scrollTop = said.scrollHeight;
};

find("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const [name, room] = [find("name").value, find("room").value].map(encodeURIComponent);
  said.replaceChildren();
  isInside(true);
  say("Going in ...");
  socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws/chat/${room}/?name=${name}`);
  socket.onopen = () => {
    say(`You are in the room “${find("room").value}”.`);
    find("words").focus();
  };
  socket.onmessage = ({ data }) => show(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    isInside(false);
    // Whoever was in a field that is disabled now is led back to the door.
    const has = document.activeElement;
    if (has === document.body || has.disabled) find("go-in").focus({ preventScroll: true });
    say(code === 1000 ? "You are outside." : reason || "The connection broke.");
  };
});

find("leave").addEventListener("click", () => socket.close(1000));

// A browser may keep the page that one has left, and its WebSocket with it.
addEventListener("pagehide", () => socket?.close(1000));

find("speak").addEventListener("submit", (event) => {
  event.preventDefault();
  if (find("words").value) socket.send(find("words").value);
  find("words").value = "";
});
