// From a node's id in a prompt ("9", "12:3" inside a subgraph, "9.0.0.1" inside an expansion) to the canvas.
import { app } from "/scripts/app.js";

/** The nodes on the way to an id, outermost first; empty if the open workflow does not have it. */
export function nodesOnTheWay(promptId) {
    const way = [];
    let graph = app.rootGraph ?? app.graph;
    for (const part of String(promptId).split(".")[0].split(":")) {
        const node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
        if (!node) return [];
        way.push(node);
        graph = node.subgraph;
    }
    return way;
}

/** The nodes that are selected on the canvas (groups and reroutes are not nodes). */
export function selectedNodes() {
    return Object.values(app.canvas?.selected_nodes ?? {});
}

/** Which of these prompt ids are selected, themselves or the subgraph around them. */
export function selectedIds(promptIds) {
    const selected = new Set(selectedNodes());
    return promptIds.filter((id) => nodesOnTheWay(id).some((node) => selected.has(node)));
}

/** Select a node and move the canvas there, into its subgraph if need be; false if it is not there. */
export function showNode(promptId) {
    const node = nodesOnTheWay(promptId).at(-1);
    const canvas = app.canvas;
    if (!node || !canvas) return false;
    if (node.graph && canvas.graph !== node.graph) canvas.setGraph?.(node.graph);
    canvas.selectNode(node);
    canvas.centerOnNode(node);
    canvas.setDirty(true, true);
    return true;
}
