"""A dataset small enough to embed in a test: three domains, six intents, 108 rows made of templates."""

from pathlib import Path

TOPICS = {
    "money": {
        "balance": ["how much money is in my {} account", "what is the balance of my {} account", "show my {} balance"],
        "transfer": ["move fifty dollars to my {} account", "send money to my {} account", "transfer cash into {}"],
    },
    "travel": {
        "flight": ["book me a flight to {}", "find the cheapest plane ticket to {}", "when does my plane to {} leave"],
        "hotel": ["reserve a hotel room in {}", "i need a place to sleep in {}", "which hotels in {} have a pool"],
    },
    "kitchen": {
        "recipe": ["how do i cook {}", "give me a recipe for {}", "what is the best way to prepare {}"],
        "calories": ["how many calories are in {}", "is {} healthy", "how much sugar does {} have"],
    },
}
FILLERS = {
    "money": ["savings", "checking", "business", "joint", "travel", "student"],
    "travel": ["paris", "tokyo", "nairobi", "lima", "oslo", "sydney"],
    "kitchen": ["lasagna", "rice", "chicken soup", "pancakes", "salmon", "beans"],
}


def rows() -> list[tuple[str, str, str, str]]:
    """108 rows: text, domain, intent, split."""
    made = []
    for domain, intents in TOPICS.items():
        for intent, templates in intents.items():
            for i, template in enumerate(templates):
                for j, filler in enumerate(FILLERS[domain]):
                    split = ("train", "train", "train", "train", "val", "test")[(i + j) % 6]
                    made.append((template.format(filler), domain, intent, split))
    return made


def write_csv(path: Path, table: list[tuple[str, ...]], header: str = "text,level0,level1,split") -> Path:
    lines = [header, *(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
