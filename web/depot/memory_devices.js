// How full the memory of each device is, and with what.
import { arrange, element, size } from "./dom.js";
import { memory } from "./memory.js";
import { TEXT } from "./text.js";

const T = TEXT.memory;
const HOST = "cpu";

/**
 * What the memory of a device holds, as {part: bytes}. Weights count within what torch has, and what nobody has told
 * counts as other programs: a device does not say all.
 */
export function partsOf(device, resident) {
    const on = (model) => model.on[device.device] ?? 0;
    const sum = (models) => models.reduce((bytes, model) => bytes + on(model), 0);
    const pinned = sum(resident.filter((model) => model.pinned));
    const models = sum(resident) - pinned;
    const own = Math.max(device.allocated ?? 0, pinned + models);
    const free = Math.min(device.free ?? 0, device.total);
    return {
        pinned, models, [device.device === HOST ? "server" : "torch"]: own - pinned - models,
        others: Math.max(0, device.total - free - own), free,
    };
}

class DeviceRow {
    constructor() {
        this.name = element("span", { class: "depot-row-title" });
        this.used = element("span", { class: "depot-row-id" });
        this.bar = element("div", { class: "depot-shares", "aria-hidden": "true" });
        this.legend = element("ul", { class: "depot-legend" });
        this.own = element("div", { class: "depot-quiet" });
        this.whole = element("li", { class: "depot-device" },
            element("div", { class: "depot-row-head" }, this.name, this.used), this.bar, this.legend, this.own);
    }

    show(device, resident) {
        const isHost = device.device === HOST;
        const parts = Object.entries(partsOf(device, resident));
        const whole = parts.reduce((bytes, [, some]) => bytes + some, 0) || 1;
        this.whole.dataset.device = device.device;
        this.name.textContent = isHost ? T.host : device.device;
        this.used.textContent = T.used(size(Math.max(0, device.total - (device.free ?? 0))), size(device.total));
        this.bar.replaceChildren(...parts.map(([part, bytes]) =>
            element("span", { class: `depot-share-${part}`, style: `width: ${(100 * bytes) / whole}%` })));
        this.legend.replaceChildren(...parts.filter(([, bytes]) => bytes > 0).map(([part, bytes]) =>
            element("li", { "data-part": part },
                element("span", { class: `depot-dot depot-share-${part}`, "aria-hidden": "true" }),
                `${T.parts[part]} ${size(bytes)}`)));
        const words = isHost ? T.server : T.torch;
        this.own.hidden = device.allocated === null;
        this.own.textContent = words(size(device.allocated ?? 0), device.peak ? size(device.peak) : "");
    }
}

/** The bars, and what pinned models may take. */
export function deviceBars() {
    const list = element("ul", { class: "depot-list depot-devices" });
    const budget = element("p", { class: "depot-quiet depot-pin-budget" });
    const rows = new Map(); // device -> its row
    const show = () => {
        const { devices, budget: most, pinned_bytes } = memory.pins;
        for (const device of devices) {
            if (!rows.has(device.device)) rows.set(device.device, new DeviceRow());
            rows.get(device.device).show(device, memory.resident);
        }
        arrange(list, devices.map(({ device }) => rows.get(device).whole));
        budget.hidden = most === null;
        budget.textContent = most === null ? "" : T.budget(size(pinned_bytes), size(most));
    };
    return { whole: element("div", {}, list, budget), show };
}
