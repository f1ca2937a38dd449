// Groups of pinned models: what each would take, and a switch from one to the other.
import { answerLine, arrange, element, size } from "./dom.js";
import { memory } from "./memory.js";
import { actButton, shortName } from "./memory_rows.js";
import { TEXT } from "./text.js";

const T = TEXT.memory;
const NAMES_SHOWN = 6;

function inWords(models) {
    const bytes = models.reduce((sum, model) => sum + (model.bytes ?? 0), 0);
    const names = models.slice(0, NAMES_SHOWN).map(({ name }) => shortName(name)).join(", ");
    const more = models.length > NAMES_SHOWN ? ` ${T.andMore(models.length - NAMES_SHOWN)}` : "";
    return `${T.groupModels(models.length, size(bytes))}: ${names}${more}`;
}

class GroupRow {
    #planned = "";

    constructor(name) {
        this.answer = answerLine();
        this.chip = element("span", { class: "depot-chip depot-chip-changed" }, T.active);
        this.models = element("div", { class: "depot-quiet" });
        this.on = actButton(T.switch, T.switchTo(name), this.answer.say, () => memory.pin({ group: name }));
        this.off = actButton(T.release, T.letGroupGo(name), this.answer.say, () => memory.unpin({ group: name }));
        this.whole = element("li", { class: "depot-group", "data-group": name },
            element("div", { class: "depot-row-head" },
                element("span", { class: "depot-row-title" }, name), this.chip, this.on, this.off),
            this.models, this.answer.whole);
    }

    show(group) {
        this.chip.hidden = this.off.hidden = !group.is_active;
        this.on.hidden = group.is_active;
        const { pins, budget } = memory.pins;
        const reason = JSON.stringify([pins.map(({ pattern, by, models }) => [pattern, by, models.length]), budget]);
        if (reason === this.#planned) return; // what it would take has not changed
        this.#planned = reason;
        this.#plan(group);
    }

    async #plan({ name, patterns }) {
        this.models.textContent ||= patterns.join(", ");
        try {
            this.models.textContent = inWords((await memory.planGroup(name)).models);
            this.models.classList.remove("depot-is-refused");
        } catch (error) {
            this.models.textContent = error.message;
            this.models.classList.add("depot-is-refused");
        }
    }
}

/** The groups; hidden where there are none. */
export function groupList() {
    const list = element("ul", { class: "depot-list" });
    const whole = element("div", { class: "depot-groups" }, element("h4", {}, T.groups), list);
    const rows = new Map(); // name -> its row
    const show = () => {
        const { groups } = memory.pins;
        for (const group of groups) {
            if (!rows.has(group.name)) rows.set(group.name, new GroupRow(group.name));
            rows.get(group.name).show(group);
        }
        arrange(list, groups.map(({ name }) => rows.get(name).whole));
        whole.hidden = !groups.length;
    };
    return { whole, show };
}
