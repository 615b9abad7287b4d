// What the scripts of this folder share: whose nodes they may touch, and widgets that no saved graph contains.

const OWN = Symbol("likeness");

/** Whether a node definition of the server is one of this pack's; nodes of other packs are never touched. */
export function isOurs(definition) {
    const category = definition.category ?? "";
    return definition.name.startsWith("Likeness") && (category === "Likeness" || category.startsWith("Likeness/"));
}

/** Run `extra(node, ...arguments)` after a method of a node class, which keeps its own result. */
export function after(nodeType, method, extra) {
    const original = nodeType.prototype[method];
    nodeType.prototype[method] = function (...given) {
        const result = original?.apply(this, given);
        extra(this, ...given);
        return result;
    };
}

/** Add an element as a widget that is only shown: it is no input of the node, and it is not saved with the graph. */
export function addShownWidget(node, name, element, minHeight) {
    keepKeys(element);
    const options = { serialize: false, hideOnZoom: false, getMinHeight: minHeight, selectOn: ["focus"] };
    const widget = node.addDOMWidget(name, "likeness", element, options);
    widget.serialize = false;
    widget[OWN] = true;
    return widget;
}

/** Leave our widgets, which come last, out of a saved graph: an input that a later version appends takes their place. */
export function forgetShownWidgets(node, saved) {
    const first = node.widgets?.findIndex((widget) => widget[OWN]) ?? -1;
    if (first >= 0 && saved.widgets_values?.length > first) {
        saved.widgets_values.length = first;
    }
}

/** Let the node grow to what its widgets need; it never shrinks, since its size is the user's. */
export function grow(node) {
    const needed = node.computeSize();
    node.setSize([Math.max(node.size[0], needed[0]), Math.max(node.size[1], needed[1])]);
    node.setDirtyCanvas?.(true, true);
}

/** A new element with a class and, safely, a text. */
export function make(tag, className = "", text = "") {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
}

/** Load the pack's style sheet once. */
export function addStyles() {
    const href = new URL("./likeness.css", import.meta.url).href;
    if (!document.querySelector(`link[href="${href}"]`)) {
        document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
    }
}

// Delete, Space or a letter pressed inside an element would else reach the canvas, and remove or move nodes.
function keepKeys(element) {
    element.addEventListener("keydown", (event) => {
        if (!event.ctrlKey && !event.metaKey && event.key !== "Escape") {
            event.stopPropagation();
        }
    });
}
