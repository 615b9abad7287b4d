// The face picker on 'Select Faces': the pictures of the last run with a button over each face. A click writes the
// node's ordinary text input `index`; without this script the same text is typed by hand.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { numbersOf, toggled } from "./face_numbers.js";
import { addShownWidget, after, grow, make } from "./own_nodes.js";
import { say } from "./texts.js";

const NODE = "LikenessSelectFaces";

class FacePicker {
    constructor(node) {
        this.node = node;
        this.entries = [];
        this.shown = 0;
        this.drawn = null;
        this.element = make("div", "likeness-picker");
        this.element.setAttribute("role", "group");
        this.element.setAttribute("aria-label", say("picker.label"));
        this.frame = make("div", "likeness-frame");
        this.stage = make("div", "likeness-stage");
        this.bar = make("div", "likeness-bar");
        this.status = make("div", "likeness-status", say("picker.hint"));
        this.status.setAttribute("role", "status");
        this.frame.append(this.stage);
        this.element.append(this.frame, this.bar, this.status);
        this.addBar();
        this.widget = addShownWidget(node, "faces", this.element, () => (this.entries.length ? 280 : 60));
        this.widget.options.onDraw = () => this.follow();
        this.refresh();
    }

    addBar() {
        const button = (text, label, act) => {
            const made = make("button", "", text);
            made.type = "button";
            made.setAttribute("aria-label", label);
            made.addEventListener("click", act);
            return made;
        };
        this.place = make("span");
        this.back = button("‹", say("picker.previous"), () => this.turn(-1));
        this.next = button("›", say("picker.next"), () => this.turn(1));
        this.all = button(say("picker.all"), say("picker.all_label"), () => this.write(""));
        this.bar.append(this.back, this.place, this.next, this.all);
    }

    get entry() {
        return this.entries[this.shown];
    }

    input(name) {
        return this.node.widgets?.find((widget) => widget.name === name);
    }

    isConnected(name) {
        return Boolean(this.node.inputs?.some((input) => input.name === name && input.link != null));
    }

    /** Take what a run sent. */
    show(entries) {
        this.entries = entries;
        this.shown = Math.min(this.shown, entries.length - 1);
        this.draw();
        grow(this.node);
    }

    turn(step) {
        this.shown = (this.shown + step + this.entries.length) % this.entries.length;
        this.draw();
    }

    /** Build the picture and its buttons anew. */
    draw() {
        const { picture, size, faces } = this.entry;
        const image = make("img");
        image.alt = say("picker.picture", { number: this.shown });
        image.draggable = false;
        image.src = api.apiURL(`/view?${new URLSearchParams(picture)}`);
        this.stage.style.setProperty("--ratio", String(size[0] / size[1]));
        this.stage.replaceChildren(image, ...faces.map((face, number) => this.faceButton(face, number)));
        this.place.textContent = say("picker.place", { number: this.shown + 1, count: this.entries.length });
        this.refresh();
    }

    faceButton({ box: [x1, y1, x2, y2], score }, number) {
        const button = make("button", "likeness-face");
        button.type = "button";
        button.dataset.number = String(number);
        button.title = say("picker.face", { number, score: Math.round(100 * score) });
        button.append(make("span", "", String(number)));
        const percent = (value) => `${100 * value}%`;
        const [left, top, width, height] = [x1, y1, x2 - x1, y2 - y1].map(percent);
        // A small face in front of a large one stays within reach.
        const zIndex = String(Math.round(1000 * (1 - (x2 - x1) * (y2 - y1))));
        Object.assign(button.style, { left, top, width, height, zIndex });
        button.addEventListener("click", () => this.toggle(number));
        return button;
    }

    toggle(number) {
        const text = toggled(String(this.input("index")?.value ?? ""), number, this.entry.faces.length);
        if (text === null) {
            this.status.textContent = say("picker.last_one");
            return;
        }
        this.write(text);
    }

    write(text) {
        const index = this.input("index");
        if (!index || this.locked()) {
            return;
        }
        index.value = text;
        index.callback?.(text);
        this.refresh();
        this.node.setDirtyCanvas?.(true, true);
    }

    /** Why a click would change nothing, or null. */
    locked() {
        if (this.isConnected("reference")) {
            return say("picker.by_reference");
        }
        return this.isConnected("index") ? say("picker.by_node") : null;
    }

    state() {
        const values = [this.input("index")?.value, this.input("order")?.value, this.locked(), this.shown];
        return JSON.stringify([...values, this.entries.length]);
    }

    /** Follow what was typed or connected since the last look. */
    follow() {
        if (this.drawn !== this.state()) {
            this.refresh();
        }
    }

    /** Show the present choice on the buttons and in words. */
    refresh() {
        this.drawn = this.state();
        const count = this.entry?.faces.length ?? 0;
        const numbers = numbersOf(String(this.input("index")?.value ?? ""), count);
        const locked = this.locked();
        for (const button of this.stage.querySelectorAll(".likeness-face")) {
            const number = Number(button.dataset.number);
            const chosen = this.isConnected("reference") ? this.entry.faces[number].chosen : numbers?.includes(number);
            button.setAttribute("aria-pressed", String(Boolean(chosen)));
            button.setAttribute("aria-disabled", String(locked !== null));
        }
        this.bar.hidden = !this.entry;
        this.frame.hidden = !this.entry;
        this.back.hidden = this.next.hidden = this.place.hidden = this.entries.length < 2;
        this.status.textContent = locked ?? this.words(numbers, count);
    }

    words(numbers, count) {
        if (!this.entry) {
            return say("picker.hint");
        }
        if (this.entry.order !== this.input("order")?.value) {
            return say("picker.other_order");
        }
        if (numbers === null) {
            return say("picker.no_numbers");
        }
        const missing = numbers.filter((number) => number >= count);
        if (missing.length) {
            return say("picker.no_face", { count, number: missing[0] });
        }
        return say("picker.chosen", { chosen: numbers.length, count, numbers: numbers.join(", ") });
    }
}

app.registerExtension({
    name: "Likeness.FacePicker",
    beforeRegisterNodeDef(nodeType, definition) {
        if (definition.name !== NODE) {
            return;
        }
        after(nodeType, "onNodeCreated", (node) => {
            node.likenessPicker = new FacePicker(node);
        });
        after(nodeType, "onConfigure", (node) => node.likenessPicker?.refresh());
        after(nodeType, "onConnectionsChange", (node) => node.likenessPicker?.refresh());
        after(nodeType, "onExecuted", (node, output) => {
            if (output?.likeness_faces?.length) {
                node.likenessPicker?.show(output.likeness_faces);
            }
        });
    },
});
