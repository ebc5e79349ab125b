// Keys and what they do. Held keys count once.

export const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", ArrowDown: "skip", " ": "play", ",": "back", ".": "forward",
  "[": "slower", "]": "faster", r: "restart", R: "restart", z: "undo", Z: "undo", Backspace: "undo", "?": "help",
};
const CHOICES = ["left", "right", "tie", "skip"];

// `act` is called with what a key means.
export function listen(act) {
  document.addEventListener("keydown", (event) => {
    const meaning = KEYS[event.key];
    const focus = document.activeElement;
    // A held Enter presses the button that has the focus again and again.
    if (event.repeat && event.key === "Enter" && focus?.matches?.(".choice, .undo")) event.preventDefault();
    // Many keyboards have the brackets on the Option key.
    const brackets = event.key === "[" || event.key === "]";
    if (!meaning || event.ctrlKey || event.metaKey || (event.altKey && !brackets)) return;
    if (document.querySelector("dialog[open]")) return;
    // A button that has the focus is pressed by Space; the slider moves by arrows only when it was reached by Tab.
    if (event.key === " " && focus instanceof HTMLButtonElement) return;
    if (focus instanceof HTMLInputElement && focus.type !== "range") return;
    if (focus?.matches?.("input[type=range]:focus-visible") && CHOICES.includes(meaning)) return;
    if (focus?.matches?.(".text:focus-visible, .prompt:focus-visible") && ["tie", "skip", "play"].includes(meaning)) return;
    event.preventDefault();
    if (!event.repeat) act(meaning);
  });
}
