// The section "Models in memory" of the panel: how full devices are, what is pinned, what is there and why, what has gone.
import { app } from "/scripts/app.js";
import { answerLine, arrange, element, section, size } from "./dom.js";
import { memory, split } from "./memory.js";
import { deviceBars } from "./memory_devices.js";
import { groupList } from "./memory_groups.js";
import { actButton, ComingRow, gpuCount, ModelRow, Rows, shortName, timeOf, unpinButton, whereIs } from "./memory_rows.js";
import { TEXT } from "./text.js";

const T = TEXT.memory;
const ROWS_SHOWN = 10;
const DROPS_SHOWN = 10;

/** The models that are pinned or asked for and not in memory, each with its pins. */
function coming() {
    const there = new Set(memory.resident.flatMap(({ names }) => names));
    const found = new Map();
    const add = (model, pins) => {
        const title = `${model.folder}/${model.name}`;
        if (there.has(title) || model.state === "ready") return;
        if (!found.has(title)) found.set(title, { model, pins: [] });
        found.get(title).pins.push(...pins);
    };
    for (const pin of memory.pins.pins) for (const model of pin.models) add(model, [pin]);
    for (const model of memory.pins.warming ?? []) add(model, []);
    return [...found.values()];
}

/** A pin that means no known model. */
class LonelyPinRow {
    constructor() {
        this.text = element("div", { class: "depot-quiet" });
        this.answer = answerLine();
        this.whole = element("li", { class: "depot-coming" }, this.text, this.answer.whole);
    }

    show(pin) {
        this.text.textContent = `${pin.by}: ${pin.warning}`;
        if (!this.button) this.text.after(this.button = unpinButton(pin, this.answer.say));
    }
}

function comingList() {
    const rows = new Rows(() => new ComingRow(), { most: ROWS_SHOWN, keyOf: ({ model }) => `${model.folder}/${model.name}` });
    const lonely = new Rows(() => new LonelyPinRow(), { most: ROWS_SHOWN, keyOf: ({ pattern, by }) => `${pattern} ${by}` });
    const whole = element("div", { class: "depot-comings" }, element("h4", {}, T.onTheWay), rows.whole, lonely.whole);
    const show = () => {
        const models = coming();
        const pins = memory.pins.pins.filter(({ warning }) => warning);
        rows.show(models);
        lonely.show(pins);
        whole.hidden = !models.length && !pins.length;
    };
    return { whole, show };
}

/** A field for names and patterns that are not in memory yet. */
function pinForm() {
    const field = element("input", {
        class: "depot-field", "aria-label": T.pinMoreHint, title: T.pinMoreHint, placeholder: T.pinMorePlaceholder,
        spellcheck: "false", autocomplete: "off",
    });
    const answer = answerLine();
    const button = actButton(T.pinMoreButton, T.pinMore, answer.say, async () => {
        const said = await memory.pin(split(field.value.trim()));
        field.value = "";
        return said;
    });
    const whole = element("form", {
        class: "depot-pin-form", onsubmit: (event) => {
            event.preventDefault();
            button.click();
        },
    }, element("div", { class: "depot-row-head" }, field, button), answer.whole);
    return { whole, show() {} };
}

function residentList() {
    const empty = element("p", { class: "depot-quiet" }, T.empty);
    const heading = element("h4", {}, T.inMemory);
    const rows = new Rows(() => new ModelRow(), {
        most: ROWS_SHOWN, keyOf: ({ names, loader }) => JSON.stringify([names, loader]),
    });
    const show = () => {
        empty.hidden = !memory.wasRead || memory.resident.length > 0 || Boolean(memory.problem);
        heading.hidden = rows.whole.hidden = !memory.resident.length;
        rows.show(memory.resident);
    };
    return { whole: element("div", { class: "depot-residents" }, heading, empty, rows.whole), show };
}

function dropRow(drop) {
    const title = drop.names.map(shortName).join(", ") || T.nameless;
    const line = [size(drop.bytes), timeOf(drop.time), drop.in_use ? T.stillInUse : null];
    return element("li", { class: "depot-drop" },
        element("div", { class: "depot-row-title", title: drop.names.join("\n") }, title),
        element("div", { class: "depot-quiet" }, line.filter(Boolean).join(" · ")),
        element("div", { class: "depot-quiet depot-why" }, drop.why));
}

function dropList() {
    const summary = element("summary");
    const list = element("ul", { class: "depot-list" });
    const whole = element("details", { class: "depot-drops" }, summary, list);
    let shown = "";
    const show = () => {
        const drops = memory.dropped.slice(0, DROPS_SHOWN);
        const wanted = JSON.stringify(drops);
        if (wanted === shown) return;
        shown = wanted;
        summary.textContent = T.dropped(drops.length);
        arrange(list, drops.map(dropRow));
    };
    return { whole, show: () => { whole.hidden = !memory.dropped.length; show(); } };
}

/** The section of the panel. */
export function memorySection() {
    const { whole, body } = section(T.title, "memory");
    const problem = answerLine();
    const onTheWay = comingList();
    const parts = [deviceBars(), groupList(), onTheWay, residentList(), pinForm(), dropList()];
    body.append(problem.whole, ...parts.map((part) => part.whole));
    const show = () => {
        problem.say(memory.problem ?? memory.pins.problem ?? "", true);
        for (const part of parts) part.show();
    };
    show();
    memory.addEventListener("progress", onTheWay.show);
    memory.listen(show);
    return {
        whole,
        close() {
            memory.removeEventListener("progress", onTheWay.show);
            memory.unlisten(show);
        },
    };
}

/** Say in a note where the models are that a node of the canvas names, and why, or why they have gone. */
export async function explainModels(node) {
    await memory.read();
    const values = (node.widgets ?? []).map(({ value }) => String(value).replaceAll("\\", "/"));
    const named = ({ names }) => names.some((title) => values.includes(split(title).name));
    const there = memory.resident.filter(named).map((model) =>
        T.isWhere(shortName(model.names[0]), whereIs(model.on, gpuCount()), model.why));
    const gone = memory.dropped.filter(named).slice(0, 1).map((drop) =>
        T.hasGone(shortName(drop.names[0]), timeOf(drop.time), drop.why));
    const detail = memory.problem ?? ([...there, ...(there.length ? [] : gone)].join("\n") || T.noneOfNode(node.title));
    app.extensionManager.toast.add({ severity: "info", summary: node.title, detail, life: 12000 });
}
