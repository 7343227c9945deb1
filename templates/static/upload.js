// Shows how far an upload is. Without this script the form works as any form does.
const form = document.getElementById("upload");
const bar = form.querySelector("progress");
const status = document.getElementById("status");
const button = form.querySelector("button");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const request = new XMLHttpRequest();
  const say = (words) => { status.textContent = words; };
  const end = (words) => {
    button.disabled = false;
    say(words);
  };
  request.upload.addEventListener("progress", (step) => {
    if (!step.lengthComputable) return;
    bar.value = 100 * step.loaded / step.total;
    say(Math.floor(bar.value) + " %");
  });
  request.addEventListener("load", () => {
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    const answer = page.getElementById("answer");
    if (answer) {
      document.getElementById("answer").replaceWith(answer);
      end(request.status === 200 ? "Done." : "There was nothing to keep.");
    } else {
      end(request.responseText.trim());
    }
  });
  request.addEventListener("error", () => end("The connection broke."));
  bar.value = 0;
  bar.parentElement.hidden = false;
  button.disabled = true;
  request.open("POST", form.action);
  request.send(new FormData(form));
});
