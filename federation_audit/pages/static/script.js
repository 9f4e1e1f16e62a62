// Keys, for those who like them. Every page works without this file.
"use strict";

(() => {
  const rows = () => [...document.querySelectorAll("section.table tbody tr")];
  const dialog = document.getElementById("keys");
  const enabled = document.documentElement.dataset.keys !== "off";
  const opener = document.querySelector("[data-show-keys]");

  // Rows can be moved to by j and k, and stay out of the order of Tab.
  for (const row of rows()) row.tabIndex = -1;

  const showKeys = () => {
    const list = dialog.querySelector("dl");
    for (const old of list.querySelectorAll("[data-of-page]")) old.remove();
    const known = new Set(["j", "k", "n", "p", "/", "?"]);
    for (const element of document.querySelectorAll("[data-key]")) {
      const key = element.dataset.key;
      if (known.has(key)) continue;
      known.add(key);
      const term = document.createElement("dt");
      const kbd = document.createElement("kbd");
      kbd.textContent = key;
      term.append(kbd);
      const meaning = document.createElement("dd");
      meaning.textContent = element.dataset.keyName || element.textContent.trim();
      term.dataset.ofPage = meaning.dataset.ofPage = "";
      list.append(term, meaning);
    }
    dialog.showModal();
  };

  const move = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement?.closest("section.table tbody tr"));
    const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1);
    all[next].focus();
    all[next].scrollIntoView({ block: "nearest" });
  };

  const typing = (element) => element?.matches?.("input:not([type=checkbox], [type=radio]), textarea, select");

  if (enabled && dialog && opener) {
    opener.hidden = false;
    opener.addEventListener("click", showKeys);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || dialog.open) return;
      const element = event.target;
      if (typing(element)) {
        if (event.key === "Escape") element.blur();
        return;
      }
      const row = element.closest?.("section.table tbody tr");
      if (event.key === "j" || event.key === "k") {
        move(event.key === "j" ? 1 : -1);
      } else if (event.key === "Enter" && element === row) {
        row.querySelector("[data-opens]")?.click();
      } else if (event.key === "?") {
        showKeys();
      } else if (event.key === "/") {
        const search = document.querySelector("[data-search]");
        if (!search) return;
        search.focus();
        search.select();
      } else {
        // A page's own keys: what stands in the row first, then what stands on the page.
        const key = event.key.length === 1 ? `[data-key="${CSS.escape(event.key)}"]` : null;
        const elsewhere = (each) => !each.closest("section.table tbody tr"); // no other row's
        const wanted = key && (row?.querySelector(key) ?? [...document.querySelectorAll(key)].find(elsewhere));
        if (!wanted || event.repeat) return; // a key that is held answers once
        wanted.click();
      }
      event.preventDefault();
    });
  }
})();
