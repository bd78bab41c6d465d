"""Write answers.tsv anew: `python -m tests.octokit.regenerate`. Read the difference before you commit it."""

from bridge.demonstrating import payloads
from tests.octokit import answers

if __name__ == "__main__":
    lines = answers.table(payloads.examples())
    answers.TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{answers.TABLE}: {len(lines) - 1} answers")
