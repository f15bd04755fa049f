"use strict";
// The gallery: groups of responses from the page's data. Text reaches the page as textContent only.
(() => {
  const section = document.getElementById("gallery");
  if (!section) return;
  const [filters, search, meaning, list, detail] = [".filters", "input", ".meaning", ".list", ".detail"].map((name) => section.querySelector(name));
  let data = null; // read when it is needed: see load()
  let kept = []; // the groups that pass filter and search, in order
  let current = null; // a group
  let kind = null; // key of the filter; null: all

  function make(tag, className = "", ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null)); // strings become text nodes
    return element;
  }
  const bdi = (text) => make("bdi", "", text);
  const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
  const side = (response) => (response.right === null ? "" : response.right ? "right" : "wrong");
  const linkOf = (group) => `g-${group.key}`;

  // --- what is searched, and how it is shown
  const words = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);
  function haystack(group) {
    group.text ??= [group.question, group.truth, group.row, group.problem_type, group.id, ...group.options,
      ...group.responses.flatMap((one) => [one.text, one.answer, one.thinking_error])].join("\n").toLowerCase();
    return group.text;
  }

  function marked(text) {
    const wanted = words().map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (!wanted.length) return [text];
    // Pieces at odd places are those that match.
    return text.split(new RegExp(`(${wanted.join("|")})`, "gi")).map((piece, place) => (place % 2 ? make("mark", "", piece) : piece));
  }

  function prose(text) {
    const pieces = text.split(/(<\/?(?:think|answer)>)/i);
    return pieces.flatMap((piece, place) => (place % 2 ? [make("span", "tag", piece)] : marked(piece)));
  }

  // --- one group
  function fact(name, value) {
    return make("span", "", make("span", "name", name), make("b", "", bdi(value)));
  }

  function thinking(response) {
    if (response.thinking_reward === null) return null;
    const bar = make("i");
    bar.style.width = `${100 * response.thinking_reward}%`;
    return make("div", "meter", "thinking", make("div", "bar", bar), make("b", "", number(response.thinking_reward)));
  }

  function badges(response) {
    const found = response.flags.filter((flag) => flag !== "distrusted" && data.kinds[flag]).map((flag) => make("span", "badge warn", data.kinds[flag].label));
    if (response.thinking_error) found.push(make("span", "badge long", bdi(response.thinking_error)));
    else if (response.thinking_reward === null && response.thinking_asked === false) found.push(make("span", "badge", "thinking not scored"));
    return found.length ? make("div", "badges", ...found) : null;
  }

  function responseCard(response) {
    const name = { right: "✓ right", wrong: "✗ wrong", "": "no outcome" }[side(response)];
    const head = make("header", "", make("b", "", name), make("span", "", `outcome ${number(response.outcome)} · reward ${number(response.reward)}`));
    return make("div", `response ${side(response)}`, head, thinking(response), make("bdi", "said", ...prose(response.text)), badges(response));
  }

  function pictures(group) {
    if (!group.images.length) return null;
    return make("div", "pictures", ...group.images.map((image, place) => {
      const element = make("img");
      element.src = image.uri;
      element.loading = "lazy";
      [element.width, element.height] = [image.width, image.height];
      element.style.height = "auto";
      element.alt = `image ${place + 1} of ${group.images.length}, ${image.source_width} x ${image.source_height} pixels`;
      return element;
    }));
  }

  function turn(label, title, step) {
    const button = make("button", "", label);
    button.type = "button";
    button.title = title;
    button.disabled = !kept[kept.indexOf(current) + step];
    button.addEventListener("click", () => move(step));
    return button;
  }

  function questionOf(group) {
    const text = make("div", "", make("p", "text", bdi(group.question)));
    const options = group.options.map((option) => make("li", "", bdi(option)));
    if (options.length) text.append(make("ol", "options", ...options));
    const facts = [["truth", group.truth ?? "unknown"], ["gamma", number(group.gamma)], ["mean thinking of right", number(group.mu_correct)], ["of wrong", number(group.mu_wrong)]];
    const kinds = group.strata.filter((key) => key !== "ordinary" && data.kinds[key]).map((key) => make("span", "badge warn", data.kinds[key].label));
    text.append(make("div", "facts", ...facts.map(([name, value]) => fact(name, value))), make("div", "facts", ...kinds));
    if (group.image_note) text.append(make("p", "note", bdi(group.image_note)));
    const shown = pictures(group);
    return make("div", shown ? "question" : "question bare", shown, text);
  }

  function showGroup() {
    if (!current) {
      detail.replaceChildren(make("p", "none", "No group is like that."));
      return;
    }
    const group = current;
    const link = make("a", "", "link");
    link.href = `#${linkOf(group)}`;
    const where = [data.runs.length > 1 ? data.runs[group.run] : null, `step ${group.step}`, group.problem_type, group.row].filter(Boolean).map((text) => bdi(text));
    const place = make("span", "", `${kept.indexOf(group) + 1} of ${kept.length}`);
    const bar = make("div", "where-bar", ...where, link, make("span", "turn", place, turn("←", "previous group (k)", -1), turn("→", "next group (j)", 1)));
    const note = group.size > group.responses.length ? make("p", "note", `${group.responses.length} of ${group.size} responses are shown.`) : null;
    const article = make("article", "", bar, questionOf(group), make("div", "responses", ...group.responses.map(responseCard)), note);
    article.id = linkOf(group);
    detail.replaceChildren(article);
    for (const entry of list.querySelectorAll("a")) {
      const here = entry.hash === `#${linkOf(group)}`;
      if (here) {
        entry.setAttribute("aria-current", "true");
        reveal(entry.parentElement);
      } else entry.removeAttribute("aria-current");
    }
  }

  // Scrolls the list, never the page.
  function reveal(entry) {
    list.scrollTop += Math.min(0, entry.getBoundingClientRect().top - list.getBoundingClientRect().top) + Math.max(0, entry.getBoundingClientRect().bottom - list.getBoundingClientRect().bottom);
    list.scrollLeft += Math.min(0, entry.getBoundingClientRect().left - list.getBoundingClientRect().left) + Math.max(0, entry.getBoundingClientRect().right - list.getBoundingClientRect().right);
  }

  // --- the list: a bar for each response, its colour the outcome, its height the thinking reward
  function strip(group) {
    const bars = group.responses.map((one) => {
      const bar = make("i", one.thinking_reward === null ? `unscored ${side(one)}` : side(one));
      if (one.thinking_reward !== null) bar.style.height = `${100 * one.thinking_reward}%`;
      return bar;
    });
    const found = make("div", "strip", ...bars);
    const right = group.responses.filter((one) => one.right).length;
    found.setAttribute("role", "img");
    found.setAttribute("aria-label", `${right} of ${group.responses.length} right`);
    return found;
  }

  function entry(group) {
    const link = make("a", "", make("div", "where", `step ${group.step}${group.gamma === null ? "" : ` · γ ${number(group.gamma)}`}`), make("div", "asked", bdi(group.question.slice(0, 200))), strip(group));
    link.href = `#${linkOf(group)}`;
    return make("li", "", link);
  }

  function showFilters() {
    const buttons = [[null, "all", data.groups.length], ...Object.values(data.kinds).map(({ key, label }) => [key, label, data.groups.filter((group) => group.strata.includes(key)).length])];
    filters.replaceChildren(...buttons.map(([key, label, count]) => {
      const button = make("button", "", label, make("b", "", String(count)));
      button.type = "button";
      button.dataset.kind = key ?? "all";
      button.disabled = count === 0;
      button.setAttribute("aria-pressed", String(key === kind));
      button.addEventListener("click", () => { kind = key; apply(); });
      return button;
    }));
  }

  function apply() {
    const wanted = words();
    kept = data.groups.filter((group) => (kind === null || group.strata.includes(kind)) && wanted.every((word) => haystack(group).includes(word)));
    for (const button of filters.children) button.setAttribute("aria-pressed", String(button.dataset.kind === (kind ?? "all")));
    const told = kind === null ? "" : ` ${data.kinds[kind].meaning} In the whole run: ${data.kinds[kind].groups.toLocaleString("en")} groups, ${data.kinds[kind].responses.toLocaleString("en")} responses.`;
    meaning.textContent = `${kept.length} of ${data.groups.length} groups shown.${told}`;
    list.replaceChildren(...kept.map(entry));
    if (!kept.includes(current)) current = kept[0] ?? null;
    showGroup();
  }

  function move(step) {
    const next = kept[kept.indexOf(current) + step];
    if (!next) return;
    select(next);
    history.replaceState(null, "", `#${linkOf(next)}`);
  }

  function select(group) {
    current = group;
    if (!kept.includes(group)) { // a link leads to its group whatever is filtered
      kind = null;
      search.value = "";
      apply();
    }
    showGroup();
    const top = detail.getBoundingClientRect().top;
    if (top < 0 || top > innerHeight * 0.7) detail.scrollIntoView({ block: "start" });
  }

  function load() {
    if (data) return;
    data = JSON.parse(document.getElementById("gallery-data").textContent);
    showFilters();
    apply();
  }

  function follow() {
    if (location.hash === "#gallery") load();
    if (!location.hash.startsWith("#g-")) return;
    load();
    const group = data.groups.find((one) => `#${linkOf(one)}` === location.hash);
    if (group) select(group);
  }

  search.addEventListener("input", () => { load(); apply(); });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    search.value = "";
    apply();
    search.blur();
  });
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea, .plot")) return;
    const step = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 }[event.key];
    if (step) {
      load();
      if (event.target.closest(".scroll")) return; // a wide table moves with the arrows
      move(step);
      event.preventDefault();
    } else if (event.key === "/") {
      load();
      section.scrollIntoView();
      search.focus();
      event.preventDefault();
    }
  });
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((one) => one.isIntersecting)) return;
    observer.disconnect();
    load();
  }, { rootMargin: "1200px" }).observe(section);
  follow();
})();
