"""Scripts that let a shell complete the command line.

The words stand in the script itself: a press of Tab starts no Python, which would take seconds to import torch. Libraries for this
(argcomplete, shtab) start it, or complete the options of argparse and not `group=option`.
"""

from collections.abc import Mapping, Sequence

from bench.errors import UsageError

SHELLS = ("bash", "zsh", "fish")

BASH = """\
# Completion of `bench` for bash. Keep it: bench completion bash > ~/.local/share/bash-completion/completions/bench
_bench() {{
    local word="${{COMP_LINE:0:COMP_POINT}}" words
    word="${{word##* }}"
    words="{words}"
    [ "$COMP_CWORD" -gt 1 ] || words="{verbs}"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    # the shell completes what stands behind the last equals sign only
    case "$word" in *=*) COMPREPLY=("${{COMPREPLY[@]#"${{word%%=*}}="}}") ;; esac
    case "${{COMPREPLY[*]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o default -F _bench bench
"""
ZSH = """\
#compdef bench
# Completion of `bench` for zsh. Keep it in a folder of $fpath: bench completion zsh > ~/.zfunc/_bench
_bench() {{
    local -a verbs words
    verbs=({verbs})
    words=({words})
    if (( CURRENT == 2 )); then
        compadd -- $verbs
    else
        compadd -S '' -- $words
        _files
    fi
}}
compdef _bench bench
"""
FISH = """\
# Completion of `bench` for fish. Keep it: bench completion fish > ~/.config/fish/completions/bench.fish
complete -c bench -f -n __fish_use_subcommand -a '{verbs}'
complete -c bench -n 'not __fish_use_subcommand' -a '{words}'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion_script(
    shell: str, verbs: Sequence[str], flags: Sequence[str], groups: Mapping[str, Sequence[str]], keys: Sequence[str]
) -> str:
    """The script for a shell. Raises UsageError for one that is not known."""
    if shell not in SCRIPTS:
        raise UsageError(f"completion: {shell} given; it takes one of {', '.join(SHELLS)}")
    options = [f"{group}={option}" for group, names in groups.items() for option in names]
    words = [*flags, *options, *(f"{key}=" for key in keys)]
    return SCRIPTS[shell].format(verbs=" ".join(verbs), words=" ".join(words))
