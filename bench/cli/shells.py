"""Shell completion by click that handles lists with commas and values after ``=``."""

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

# Click's own script splits a candidate at each comma; this one only after its type.
FISH_SCRIPT = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -t) %(prog_name)s)
    for candidate in $response
        set -l parts (string split --max 1 "," -- $candidate)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _WholeWords(ShellComplete):
    """Completion whose candidates replace the whole word, also in ``--option=value``."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return candidates that begin with the option if the word does."""
        candidates = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if not equals or not option.startswith("-"):
            return candidates
        return [
            CompletionItem(f"{option}={item.value}", type=item.type, help=item.help)
            for item in candidates
        ]


class _Bash(_WholeWords, BashComplete):
    """Completion for bash, which breaks words at ``=`` and completes only the part after it."""

    _typed_before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete arguments and the incomplete one, joined again at ``=``."""
        arguments, word = super().get_completion_args()
        arguments = _joined([*arguments, word] if word else arguments)
        if not word:
            return arguments, word
        incomplete = arguments.pop()
        self._typed_before = incomplete if word == "=" else incomplete.removesuffix(word)
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a candidate without the part that bash takes for earlier words."""
        value = str(item.value)
        ends = [i + 1 for i, character in enumerate(value) if character == "="]
        typed = [end for end in ends if self._typed_before.endswith(value[:end])]
        return f"{item.type},{value[max(typed, default=0) :]}"


class _Zsh(_WholeWords, ZshComplete):
    """Completion for zsh."""


class _Fish(_WholeWords, FishComplete):
    """Completion for fish of candidates that contain commas."""

    source_template = FISH_SCRIPT


def register() -> None:
    """Make click complete with these scripts."""
    shells: tuple[type[ShellComplete], ...] = (_Bash, _Zsh, _Fish)
    for shell in shells:
        add_completion_class(shell)


def _joined(words: list[str]) -> list[str]:
    """Join words that bash broke at ``=``.

    >>> _joined(["results", "--where", "metric", "=", "fad"])
    ['results', '--where', 'metric=fad']
    """
    joined: list[str] = []
    for word in words:
        if joined and (word.startswith("=") or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined
