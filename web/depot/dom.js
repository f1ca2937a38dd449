// Elements, without HTML: whatever a file, a node or a server is called, it is shown as text.

/** An element with attributes (`on...` are listeners, null and false are left out) and children (texts, nodes). */
export function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
        else if (value === true) made.setAttribute(name, "");
        else if (value !== null && value !== false && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
}

/** An icon of the page's own icon font; it says nothing to screen readers. */
export function icon(name) {
    return element("i", { class: `pi pi-${name}`, "aria-hidden": "true" });
}

/** A section of the panel: a heading, and a body that the caller fills. */
export function section(title, name) {
    const body = element("div", { class: "depot-body" });
    const heading = element("h3", { id: `depot-heading-${name}` }, title);
    const whole = element("section", { class: `depot-section depot-${name}`, "aria-labelledby": heading.id });
    whole.append(heading, body);
    return { whole, heading, body };
}

/** "1.4 GB": decimal units, as disks and networks are sold. */
export function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const step = Math.min(Math.max(Math.floor(Math.log10(bytes || 1) / 3), 0), units.length - 1);
    return `${(bytes / 1000 ** step).toFixed(step ? 1 : 0)} ${units[step]}`;
}

/** "2 min 5 s". */
export function duration(seconds) {
    const whole = Math.ceil(seconds);
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Make these elements the children, in this order. What stands right already is not touched, so it keeps the focus. */
export function arrange(parent, wanted) {
    const staying = new Set(wanted);
    for (const child of [...parent.children]) if (!staying.has(child)) child.remove();
    wanted.forEach((one, place) => {
        if (parent.children[place] !== one) parent.insertBefore(one, parent.children[place] ?? null);
    });
}

/** A line for what a click has led to; hidden while it is empty. */
export function answerLine() {
    const whole = element("p", { class: "depot-note", role: "status", hidden: true });
    const say = (text, isProblem = false) => {
        whole.hidden = !text;
        whole.textContent = text ?? "";
        whole.classList.toggle("depot-problem", isProblem);
    };
    return { whole, say };
}
