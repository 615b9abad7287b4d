// Shows what a node of this pack reports (`ui.text`: faces found, similarities, what was loaded) on the node itself.
import { app } from "../../scripts/app.js";
import { addShownWidget, addStyles, after, forgetShownWidgets, grow, isOurs, make } from "./own_nodes.js";
import { say } from "./texts.js";

const NAME = "likeness_report";
const LINE_HEIGHT = 15;
const TALLEST = 180;

function show(node, text) {
    let widget = node.widgets?.find((known) => known.name === NAME);
    if (!widget) {
        const element = make("pre", "likeness-report");
        element.tabIndex = 0;
        element.setAttribute("role", "region");
        element.setAttribute("aria-label", say("report.label", { title: node.title }));
        const lines = () => element.textContent.split("\n").length;
        widget = addShownWidget(node, NAME, element, () => Math.min(TALLEST, 36 + LINE_HEIGHT * lines()));
    }
    widget.element.textContent = text;
    grow(node);
}

app.registerExtension({
    name: "Likeness.Report",
    setup: addStyles,
    beforeRegisterNodeDef(nodeType, definition) {
        if (!isOurs(definition)) {
            return;
        }
        after(nodeType, "onSerialize", forgetShownWidgets);
        after(nodeType, "onExecuted", (node, output) => {
            const text = [output?.text ?? []].flat().join("\n");
            if (text) {
                show(node, text);
            }
        });
    },
});
