// One row for each model in memory, and for each that is pinned and on its way there.
import { answerLine, arrange, element, icon, size } from "./dom.js";
import { memory, split } from "./memory.js";
import { TEXT } from "./text.js";
import { transferOf } from "./transfers.js";

const T = TEXT.memory;
const HOST = "cpu";
const UNDER_WAY = new Set(["fetching", "loading"]);
let rowsMade = 0;

/** The time of day of a moment, in seconds. */
export function timeOf(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString();
}

function placeName(device) {
    return device === HOST ? T.host : device;
}

/** The last part of "checkpoints/sdxl/base.safetensors". */
export function shortName(title) {
    return title.split("/").at(-1);
}

/** Where weights are, in words, from {device: bytes}. `gpus`: how many the server has. */
export function whereIs(on, gpus) {
    const parts = Object.entries(on).filter(([, bytes]) => bytes > 0);
    if (!parts.length) return T.places.nothing;
    const elsewhere = parts.filter(([device]) => device !== HOST);
    if (!elsewhere.length) return T.places.memory;
    const [device, bytes] = elsewhere[0];
    if (parts.length === 1) return gpus > 1 ? T.places.device(device) : T.places.gpu;
    if (elsewhere.length > 1) return T.places.spread(parts.map(([name, some]) => `${placeName(name)} (${size(some)})`));
    return T.places.part(size(bytes), size(bytes + on[HOST]), device);
}

/** How many devices the server has beside its own memory. */
export function gpuCount() {
    return memory.pins.devices.filter(({ device }) => device !== HOST).length;
}

/** Let a click do something once at a time, and say below what the server answers. */
async function doIt(button, say, act) {
    if (button.ariaBusy === "true") return;
    button.ariaBusy = "true";
    try {
        say((await act())?.message);
    } catch (error) {
        say(error.message, true);
    }
    button.ariaBusy = "false";
}

/** A button for `act`, whose answer is said. */
export function actButton(word, label, say, act) {
    const button = element("button", {
        type: "button", class: "depot-button depot-small", title: label, "aria-label": label,
        onclick: () => doIt(button, say, act),
    }, word);
    return button;
}

/** The group that made a pin; undefined when it is no group's. */
function groupOf(pin) {
    return memory.pins.groups.find(({ name, is_active }) => is_active && pin.by === `group ${name}`);
}

/** The button that lets a pin go, with its group if it is of one. */
export function unpinButton(pin, say) {
    const group = groupOf(pin);
    const label = group ? T.letGroupGo(group.name) : T.letPinGo(pin.pattern);
    return actButton(label, label, say, () => memory.unpin(group ? { group: group.name } : split(pin.pattern)));
}

function facts(model) {
    const seconds = model.seconds_to_load.toFixed(1);
    const rows = [
        [T.facts.names, model.names.join("\n")],
        [T.facts.loads, T.loads(T.times(model.loads), seconds)],
        [T.facts.hits, T.times(model.hits)],
        [T.facts.used, new Date(model.last_used * 1000).toLocaleString()],
        [T.facts.users, T.users(model.users)],
        [T.facts.sharedBy, model.shared_by.join(", ")],
    ];
    const shown = rows.filter(([, text]) => text);
    return element("dl", { class: "depot-facts" },
        ...shown.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
}

function moveRow(move) {
    const where = T.move(placeName(move.from), placeName(move.to), size(move.bytes), move.seconds.toFixed(2));
    return element("li", {},
        element("div", {}, element("span", { class: "depot-row-id" }, timeOf(move.time)), ` ${where}`),
        element("div", { class: "depot-quiet" }, move.why));
}

function part(title, list) {
    return [element("h5", {}, title), list];
}

/** A model in memory. */
export class ModelRow {
    #model = null;
    #pins = [];
    #filledWith = "";

    constructor() {
        const id = `depot-model-${rowsMade++}`;
        this.name = element("span", { class: "depot-row-title" });
        this.line = element("span", { class: "depot-quiet" });
        this.why = element("span", { class: "depot-why" });
        this.opener = element("button", {
            type: "button", class: "depot-row", "aria-expanded": "false", "aria-controls": id, onclick: () => this.#toggle(),
        }, element("span", { class: "depot-row-head" }, icon("chevron-right"), this.name), this.line, this.why);
        this.pin = element("button", { type: "button", class: "depot-icon-button depot-pin", onclick: () => this.#press() },
            icon("thumbtack"));
        this.answer = answerLine();
        this.more = element("div", { class: "depot-model-more", id, hidden: true });
        this.whole = element("li", { class: "depot-model" },
            element("div", { class: "depot-model-head" }, this.opener, this.pin), this.answer.whole, this.more);
    }

    show(model) {
        this.#model = model;
        this.#pins = memory.holding(model.names);
        const title = model.names[0];
        const name = title ? shortName(title) : T.nameless;
        this.name.textContent = name;
        this.name.title = model.names.join("\n");
        this.line.textContent = [size(model.bytes), whereIs(model.on, gpuCount())].join(" · ");
        this.why.textContent = model.why;
        this.whole.dataset.model = title ?? "";
        this.whole.classList.toggle("depot-is-pinned", model.pinned !== null);
        this.#showPin(title, name);
        if (!this.more.hidden) this.#fill();
    }

    #showPin(title, name) {
        const by = this.#model.pinned?.by ?? this.#pins.map((pin) => pin.by);
        this.pin.hidden = !title;
        this.pin.setAttribute("aria-pressed", String(by.length > 0));
        const label = by.length ? T.unpin(name) : T.pin(name);
        if (this.pin.ariaLabel !== label) this.pin.ariaLabel = label;
        this.pin.title = by.length ? `${T.pinnedBy(by)}. ${label}` : label;
    }

    #press() {
        const { names } = this.#model;
        const own = this.#pins.find(({ pattern, by }) => names.includes(pattern) && !groupOf({ by }));
        if (!this.#pins.length) doIt(this.pin, this.answer.say, () => memory.pin(split(names[0])));
        else if (own) doIt(this.pin, this.answer.say, () => memory.unpin(split(own.pattern)));
        else {
            this.answer.say(T.otherPin);
            if (this.more.hidden) this.#toggle();
            this.more.querySelector("button")?.focus();
        }
    }

    #toggle() {
        const isOpen = this.more.hidden;
        this.opener.ariaExpanded = String(isOpen);
        this.more.hidden = !isOpen;
        if (isOpen) this.#fill();
    }

    /** What stands inside is made only when it is seen and has changed. */
    #fill() {
        const { names, loads, hits, last_used, users, shared_by, moves } = this.#model;
        const by = this.#pins.map((pin) => [pin.pattern, pin.by]);
        const wanted = JSON.stringify([names, loads, hits, last_used, users, shared_by, moves, by]);
        if (wanted === this.#filledWith) return;
        this.#filledWith = wanted;
        const pins = this.#pins.map((pin) => element("li", {},
            element("div", {}, T.pinSince(pin.pattern, pin.by, timeOf(pin.since))), unpinButton(pin, this.answer.say)));
        const list = moves.length ? element("ul", { class: "depot-list" }, ...moves.map(moveRow))
            : element("p", { class: "depot-quiet" }, T.noMoves);
        this.more.replaceChildren(facts(this.#model),
            ...(pins.length ? part(T.pins, element("ul", { class: "depot-list" }, ...pins)) : []),
            ...part(T.moves, list));
    }
}

/** A model that is to be in memory and is not there yet. */
export class ComingRow {
    #model = null;
    #pins = "";

    constructor() {
        this.name = element("span", { class: "depot-row-title" });
        this.bar = element("progress", { class: "depot-bar" });
        this.line = element("div", { class: "depot-quiet" });
        this.message = answerLine();
        this.answer = answerLine();
        this.load = actButton(T.loadNow, T.loadNow, this.answer.say, async () => {
            await memory.warm({ folder: this.#model.folder, name: this.#model.name });
        });
        this.unpin = element("div", { class: "depot-buttons" });
        this.whole = element("li", { class: "depot-coming" },
            element("div", { class: "depot-row-head" }, this.name, this.load),
            this.bar, this.line, this.message.whole, this.unpin, this.answer.whole);
    }

    show({ model, pins }) {
        const title = `${model.folder}/${model.name}`;
        const now = memory.stateOf(model);
        const transfer = now.state === "fetching" ? transferOf(model.folder, model.name) : undefined;
        this.#model = model;
        this.name.textContent = shortName(title);
        this.name.title = this.bar.ariaLabel = title;
        this.whole.dataset.model = title;
        this.message.say(now.message, now.state === "failed");
        this.bar.hidden = !UNDER_WAY.has(now.state);
        this.load.hidden = UNDER_WAY.has(now.state);
        this.load.ariaLabel = this.load.title = T.loadNowLabel(shortName(title));
        this.#showPins(pins);
        this.#showProgress(transfer);
        const by = pins.map((pin) => pin.by);
        this.line.textContent = [
            this.#stateInWords(now, transfer), model.bytes === null ? null : size(model.bytes),
            by.length ? T.pinnedBy(by) : T.asked,
        ].filter(Boolean).join(" · ");
    }

    #showPins(pins) {
        const wanted = JSON.stringify(pins.map(({ pattern, by }) => [pattern, by]));
        if (wanted === this.#pins) return;
        this.#pins = wanted;
        this.unpin.replaceChildren(...pins.map((pin) => unpinButton(pin, this.answer.say)));
    }

    #showProgress(transfer) {
        if (transfer?.bytes_total) {
            this.bar.max = transfer.bytes_total;
            this.bar.value = transfer.bytes_done;
        } else {
            this.bar.removeAttribute("value"); // it moves, since nobody knows how long it takes
        }
    }

    #stateInWords(now, transfer) {
        if (!transfer?.bytes_total) return T.states[now.state] ?? now.state;
        return T.fetched(Math.floor((100 * transfer.bytes_done) / transfer.bytes_total));
    }
}

/** A list whose rows are changed in place; beyond `most` they wait behind a button. */
export class Rows {
    #rows = new Map(); // key -> row
    #items = [];
    #isWhole = false;

    constructor(makeRow, { most, keyOf }) {
        Object.assign(this, { makeRow, most, keyOf });
        this.list = element("ul", { class: "depot-list" });
        this.button = element("button", { type: "button", class: "depot-button depot-small", onclick: () => this.#showAll() });
        this.whole = element("div", { class: "depot-rows" }, this.list, this.button);
    }

    show(items) {
        this.#items = items;
        const rows = new Map();
        for (const item of this.#isWhole ? items : items.slice(0, this.most)) {
            let key = this.keyOf(item);
            while (rows.has(key)) key += "\n"; // two of one name, loaded in two ways
            rows.set(key, this.#rows.get(key) ?? this.makeRow());
            rows.get(key).show(item);
        }
        this.#rows = rows;
        arrange(this.list, [...rows.values()].map(({ whole }) => whole));
        this.button.hidden = rows.size === items.length;
        this.button.textContent = T.more(items.length - rows.size);
    }

    #showAll() {
        this.#isWhole = true;
        this.show(this.#items);
    }
}
