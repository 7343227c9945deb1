// Draws the figures again each second: it asks for the same page and takes them out of it.
const again = async () => {
  try {
    const answer = await fetch("/trends/", { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const figures = page.getElementById("figures");
    if (figures) document.getElementById("figures").replaceWith(figures);
  } catch {
    // The server is away. Perhaps it comes back.
  }
  setTimeout(again, 1000);
};
setTimeout(again, 1000);
