// The text of a choice of faces, "0,2" or "1-3": the same rules as the node's own reading of it. Empty means all.

/** The numbers of a text, or null where it is none; numbers that are not there are kept. */
export function numbersOf(text, count) {
    const parts = text.replaceAll(",", " ").split(/\s+/).filter(Boolean);
    if (parts.length === 0) {
        return Array.from({ length: count }, (_, number) => number);
    }
    const numbers = [];
    for (const part of parts) {
        const found = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part);
        const [first, last] = found ? [Number(found[1]), Number(found[2] ?? found[1])] : [1, 0];
        // A range of many numbers that are not there is a slip of the finger, which the node itself explains.
        if (last < first || last - first > 1000) {
            return null;
        }
        for (let number = first; number <= last; number += 1) {
            numbers.push(number);
        }
    }
    return numbers;
}

/** The text after one face was clicked: taken out if it was in, else put at the end; null if none would be left. */
export function toggled(text, number, count) {
    const numbers = numbersOf(text, count) ?? [];
    if (!numbers.includes(number)) {
        return [...numbers, number].join(",");
    }
    const rest = numbers.filter((other) => other !== number);
    return rest.length ? rest.join(",") : null;
}
