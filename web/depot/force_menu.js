// The choice of what runs again, as fields of the panel and as a button beside Run.
import { app } from "/scripts/app.js";
import { selectedNodes } from "./canvas.js";
import { element, icon } from "./dom.js";
import { CACHES, CHOICES, force } from "./force.js";
import { TEXT } from "./text.js";

const T = TEXT.force;
const NAMES_SHOWN = 3;
let groups = 0;

function radioGroup(legend, values, texts, key) {
    const name = `depot-${key}-${groups++}`;
    const radios = new Map();
    const group = element("fieldset", { class: "depot-choices" }, element("legend", {}, legend));
    for (const value of values) {
        const radio = element("input", { type: "radio", name, value, onchange: () => force.set({ [key]: value }) });
        radios.set(value, radio);
        const words = element("span", { class: "depot-choice-words" },
            element("span", { class: "depot-choice-label" }, texts[value].label),
            element("span", { class: "depot-choice-hint" }, texts[value].hint));
        group.append(element("label", { class: "depot-choice" }, radio, words));
    }
    const hint = element("p", { class: "depot-quiet depot-chosen-hint", role: "status" });
    group.append(hint);
    const show = () => {
        for (const [value, radio] of radios) radio.checked = force[key] === value;
        hint.textContent = texts[force[key]].hint;
    };
    return { group, show };
}

function selectionText() {
    const names = selectedNodes().map((node) => node.title || node.type);
    if (!names.length) return T.selectionEmpty;
    return T.selection(names.slice(0, NAMES_SHOWN), Math.max(names.length - NAMES_SHOWN, 0));
}

/** Both choices with their notes; `close` takes it off the page's events again. */
export function forceFields() {
    const choice = radioGroup(T.legend, CHOICES, T.choices, "choice");
    const cache = radioGroup(T.cacheLegend, CACHES, T.caches, "cache");
    const selection = element("p", { class: "depot-note" });
    const cacheWins = element("p", { class: "depot-note" }, T.cacheWins);
    const problem = element("p", { class: "depot-note depot-problem", role: "status" });
    const reset = element("button", {
        type: "button", class: "depot-button", onclick: () => force.set({ choice: "usual", cache: "read" }),
    }, icon("undo"), T.reset);
    const whole = element("div", { class: "depot-force-fields" },
        choice.group, selection, cache.group, cacheWins, problem, reset);
    const show = () => {
        choice.show();
        cache.show();
        selection.hidden = force.choice !== "selected";
        selection.textContent = selectionText();
        cacheWins.hidden = force.cache === "read" || force.choice === "usual";
        problem.hidden = !force.problem;
        problem.textContent = force.problem ?? "";
        reset.hidden = force.isDefault;
    };
    show();
    force.addEventListener("change", show);
    document.addEventListener("pointerup", show); // the selection may be another one
    return {
        whole,
        show,
        close() {
            force.removeEventListener("change", show);
            document.removeEventListener("pointerup", show);
        },
    };
}

function badgeText() {
    const cache = T.cacheBadges[force.cache];
    if (!cache) return T.badges[force.choice];
    return force.choice === "usual" ? cache : `${T.badges[force.choice]} · ${cache}`;
}

/** A button beside Run that shows the choice and opens its fields. Older pages have no place for it. */
export function addForceButton() {
    const place = app.menu?.settingsGroup;
    if (typeof place?.append !== "function") return;
    const label = element("span", { class: "depot-force-label" });
    const fields = forceFields();
    const menu = element("div", { class: "depot depot-menu", popover: "auto", role: "group", "aria-label": T.title },
        fields.whole);
    const button = element("button", {
        type: "button", class: "depot-force-button", title: T.buttonTooltip,
        "aria-expanded": "false", "data-testid": "depot-force-button",
    }, icon("refresh"), label, icon("chevron-down"));
    button.popoverTargetElement = menu;
    menu.addEventListener("toggle", ({ newState }) => {
        button.setAttribute("aria-expanded", String(newState === "open"));
        if (newState !== "open") return;
        fields.show();
        const { bottom, right } = button.getBoundingClientRect();
        menu.style.top = `${bottom + 8}px`;
        menu.style.right = `${Math.max(window.innerWidth - right, 8)}px`;
        menu.querySelector("input:checked")?.focus();
    });
    menu.addEventListener("keydown", (event) => {
        event.stopPropagation(); // the page has commands on single keys
        if (event.key !== "Escape") return;
        menu.hidePopover();
        button.focus();
    });
    const show = () => {
        label.textContent = badgeText();
        button.classList.toggle("depot-active", !force.isDefault);
    };
    show();
    force.addEventListener("change", show);
    document.body.append(menu);
    place.append(button);
}
