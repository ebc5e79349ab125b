// Who answers: a name without an account, kept by this browser.

const KEY = "rllab.annotator";

export const known = () => localStorage.getItem(KEY) ?? "";

// Ask for the name; `current` stands there already. Resolves with the new one, or "" if the dialog was closed.
export function askName(current) {
  const dialog = document.getElementById("name-dialog");
  const field = document.getElementById("name");
  const problem = document.getElementById("name-problem");
  field.value = current;
  problem.textContent = "";
  return new Promise((resolve) => {
    const done = (name) => {
      document.getElementById("name-ok").onclick = field.onkeydown = dialog.oncancel = null;
      dialog.close();
      resolve(name);
    };
    const accept = () => {
      const name = field.value.trim();
      if (!name) {
        problem.textContent = "Give a name, such as your first name.";
        field.focus();
        return;
      }
      localStorage.setItem(KEY, name);
      done(name);
    };
    document.getElementById("name-ok").onclick = accept;
    field.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter") accept();
    };
    dialog.oncancel = (event) => {
      event.preventDefault();
      if (current) done("");
    };
    dialog.showModal();
    field.select();
  });
}
