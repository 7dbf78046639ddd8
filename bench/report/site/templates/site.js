"use strict";
(() => {
  function makeTabs(list) {
    const tabs = [...list.querySelectorAll("a")];
    const panels = tabs.map((tab) => document.getElementById(tab.hash.slice(1)));

    function select(chosen) {
      tabs.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === chosen));
        tab.tabIndex = i === chosen ? 0 : -1;
        panels[i].hidden = i !== chosen;
      });
    }

    function open(chosen) {
      select(chosen);
      history.replaceState(null, "", tabs[chosen].hash);
      tabs[chosen].focus();
    }

    // A fragment names a panel, or something in it.
    function follow() {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      const chosen = panels.findIndex((panel) => panel.contains(target));
      if (chosen < 0) return false;
      select(chosen);
      return true;
    }

    list.setAttribute("role", "tablist");
    tabs.forEach((tab, i) => {
      tab.parentElement.setAttribute("role", "presentation");
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panels[i].id);
      panels[i].setAttribute("role", "tabpanel");
      panels[i].setAttribute("aria-labelledby", tab.id);
      panels[i].tabIndex = 0;
      tab.addEventListener("click", (event) => {
        event.preventDefault();
        open(i);
      });
    });
    list.addEventListener("keydown", (event) => {
      const now = tabs.indexOf(document.activeElement);
      if (now < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const next = {
        ArrowRight: (now + 1) % tabs.length,
        ArrowLeft: (now + tabs.length - 1) % tabs.length,
        Home: 0,
        End: tabs.length - 1,
        " ": now,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      open(next);
    });
    addEventListener("hashchange", follow);
    if (!follow()) select(0);
  }

  function makeCopyable(button) {
    const source = document.getElementById(button.dataset.copy);
    const status = button.parentElement.querySelector("[role=status]");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        status.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        status.textContent = "Selected: copy it with Ctrl+C";
      }
    });
    button.hidden = false;
  }

  document.querySelectorAll("[data-tabs]").forEach(makeTabs);
  document.querySelectorAll("[data-copy]").forEach(makeCopyable);
})();
