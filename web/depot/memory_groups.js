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
    const unknown = models.filter((model) => model.bytes === null).length;
    const known = unknown ? T.andUnknown(size(bytes), unknown) : size(bytes);
    return `${T.groupModels(models.length, known)}${names && ": "}${names}${more}`;
}

class GroupRow {
    constructor({ name, patterns }) {
        this.answer = answerLine();
        this.chip = element("span", { class: "depot-chip depot-chip-changed" }, T.active);
        this.models = element("div", { class: "depot-quiet" }, patterns.join(", "));
        this.problem = element("p", { class: "depot-note", hidden: true });
        this.on = actButton(T.switch, T.switchTo(name), this.answer.say, () => memory.pin({ group: name }));
        this.off = actButton(T.release, T.letGroupGo(name), this.answer.say, () => memory.unpin({ group: name }));
        this.whole = element("li", { class: "depot-group", "data-group": name },
            element("div", { class: "depot-row-head" },
                element("span", { class: "depot-row-title" }, name), this.chip, this.on, this.off),
            this.models, this.problem, this.answer.whole);
    }

    show({ is_active }) {
        this.chip.hidden = this.off.hidden = !is_active;
        this.on.hidden = is_active;
    }

    showOutlook({ models, problem }) {
        this.models.textContent = inWords(models);
        this.problem.hidden = !problem;
        this.problem.textContent = problem ?? "";
    }
}

/** The groups; hidden where there are none. */
export function groupList() {
    const list = element("ul", { class: "depot-list" });
    const whole = element("div", { class: "depot-groups" }, element("h4", {}, T.groups), list);
    const rows = new Map(); // name -> its row
    let shownFor = "";

    async function showOutlook(wanted) {
        try {
            for (const group of await memory.groups()) if (wanted === shownFor) rows.get(group.name)?.showOutlook(group);
        } catch (error) {
            console.warn("What groups of models take cannot be read:", error);
        }
    }

    function show() {
        const { groups, pins, budget } = memory.pins;
        for (const group of groups) {
            if (!rows.has(group.name)) rows.set(group.name, new GroupRow(group));
            rows.get(group.name).show(group);
        }
        arrange(list, groups.map(({ name }) => rows.get(name).whole));
        whole.hidden = !groups.length;
        const wanted = JSON.stringify([groups, budget, pins.map(({ by, models }) => [by, models.map(({ bytes }) => bytes)])]);
        if (!groups.length || wanted === shownFor) return; // what they would take has not changed
        shownFor = wanted;
        showOutlook(wanted);
    }
    return { whole, show };
}
